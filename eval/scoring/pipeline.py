"""Carry out a scoring plan: answers → predictions → figures → files, for every job.

The command's part is its `Evaluation`. One loop takes the answers to all jobs, from here or from workers.
docs/eval-nli.md describes the files.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from tqdm import tqdm

from tuneyard.core.errors import RequestError
from tuneyard.core.execution import Executor
from tuneyard.core.execution.options import executor_of
from tuneyard.core.files import reserved, sha256, write_json
from tuneyard.core.installation.checkout import version
from tuneyard.core.language.message import _, counted, joined
from tuneyard.core.language.messages import say, warn, warn_once
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.core.records.record import read_record
from tuneyard.core.records.results_record import OutputOrigin, ResultFacts, ResultsRecord
from tuneyard.core.records.run_record import RunIdentity
from tuneyard.eval.data.training import trained_on
from tuneyard.eval.figures import measure
from tuneyard.eval.models.batch_plan import Fields, score_in_halves
from tuneyard.eval.models.worker_model import worker_slots
from tuneyard.eval.report.findings import sentence
from tuneyard.eval.runs.findings import training_findings
from tuneyard.eval.runs.results import (
    PREDICTIONS,
    RESULTS,
    PredictionLog,
    Results,
    begin_scoring_run,
    end_run,
    undone_without_predictions,
)
from tuneyard.eval.scoring.evaluation import Job, NextStep
from tuneyard.eval.scoring.plan import VERSIONS, ScoringPlan
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.statistics.rates import groups_of, is_answered

SHOWN_REFUSED = 5  # rows in a message
ORIGIN = tuple(OutputOrigin.__annotations__)
"""The fields of results.json about the origin of the outputs. --rescore keeps them."""


def workers_of(request: ScoringRequest) -> contextlib.AbstractContextManager[Executor | None]:
    """The workers of --workers or --ray inside a block. None: this process scores.

    `RequestError` for a backend that answers many rows at once by itself.
    """
    if not request.ray and (request.workers or 1) == 1:
        return contextlib.nullcontext()
    if not request.backend_kind.in_workers:
        flag = "--ray" if request.ray else "--workers"
        raise RequestError(
            _(
                "{flag}: --backend {name} answers many rows at once by itself: leave {flag} out (for "
                "vllm, --tensor-parallel N divides the model among N GPUs)",
                flag=flag,
                name=request.backend,
            )
        )
    return executor_of(request.workers, request.ray, slots=worker_slots)


def carry_out(plan: ScoringPlan) -> NextStep:
    """Do the jobs of a plan into its run folder. The next step is that of a plan that is a whole command."""
    request, evaluation = plan.request, plan.evaluation
    scored = [job.folder for job in plan.jobs]
    with reserved(request.out):
        begin_scoring_run(
            request.out,
            plan.identity,
            force=request.force,
            caller=request.by,
            summaries=evaluation.summaries,
            inputs=plan.inputs,
        )
        with undone_without_predictions(request.out):
            _score(plan)
    models = [candidate.name for candidate in plan.opened.candidates]
    datasets = list(plan.identity["datasets"])
    evaluation.finish(request.out, models, datasets)
    end_run(request.out, scored)
    return evaluation.next_step(request.out, models, datasets)


def _score(plan: ScoringPlan) -> None:
    """Score all jobs, here or in workers, and write the files of each as soon as its rows are there."""
    workers = plan.opened.workers
    for model, dataset in plan.finished:
        say(_("{model}  {dataset}  done before", model=model, dataset=dataset))
    logs: dict[Job, PredictionLog] = {}
    pending = {job: job.batch_plan.batches for job in plan.jobs}
    for job in plan.jobs:
        if job.main is None:  # with the batches of an interrupted run
            numbers: Sequence[int] = ()
            if job.evaluation.token_losses:
                numbers = job.dataset.record_numbers[: len(job.rows)]
            logs[job] = PredictionLog(job.folder, job.batch_plan.batches, numbers)
            pending[job] = logs[job].pending
    began, scored = time.monotonic(), 0
    with contextlib.ExitStack() as stack:
        if workers:
            from tuneyard.eval.scoring.remote import score_in_workers

            answers = stack.enter_context(contextlib.closing(score_in_workers(workers, plan, dict(pending))))
        while plan.jobs:
            job = plan.jobs.pop(0)  # with its prompts and states, which nobody needs any more
            batches, log = pending.pop(job), logs.pop(job, None)
            if log is not None:
                check_refused(job, log.refused)  # of an interrupted run
            left = sum(map(len, batches))
            total = max(len(job.rows), left)  # which may be further prompts
            about = f"{job.candidate.name} {job.dataset.name}"
            if not workers:
                job.backend.apply(job.candidate.adapters)
            with tqdm(total=total, initial=total - left, desc=about, leave=False) as bar:
                for batch in batches:
                    fields = next(answers) if workers else score_in_halves(job.batch_plan, batch)
                    by_row = dict(zip(batch, fields, strict=True))
                    bar.update(len(batch))
                    if job.main is not None:
                        job.main.further |= {row: each for row, each in by_row.items() if is_answered(each)}
                        _warn_of_refused_prompts(job, by_row)
                    if log is None:
                        continue
                    log.append([_prediction(job, row, each) for row, each in by_row.items()], by_row)
                    check_refused(job, log.refused)
                    scored += len(batch)
            if log is not None:
                seconds = time.monotonic() - began
                _finish(
                    job,
                    log,
                    plan,
                    _("{seconds:.1f} s ({rate:.1f} rows/s)", seconds=seconds, rate=scored / seconds),
                )
                if not workers:  # whose jobs run side by side
                    began, scored = time.monotonic(), 0


def check_refused(job: Job, refused: Mapping[int, str]) -> None:
    """Raise `RequestError` if the server refused more of a job's rows than --max-refused allows."""
    if job.backend.run or len(refused) <= job.request.max_refused:
        return
    rows: list[str] = []
    for row, reason in sorted(refused.items())[:SHOWN_REFUSED]:
        rows.append(_("{place} ({reason})", place=job.dataset.place(row), reason=reason))
    if len(refused) > SHOWN_REFUSED:
        rows.append(_("and {number} more", number=len(refused) - SHOWN_REFUSED))
    command = job.request.command_line.text(("--resume", "--force"), r" --max-refused[ =]\S+")
    raise RequestError(
        _(
            "{model} on {dataset}: the server refused {rows}, expected at most {most} "
            "(--max-refused): {reasons}. What was answered is kept; `{command} --resume "
            "--max-refused {number}` resumes and counts them as unanswered",
            model=job.candidate.name,
            dataset=job.dataset.name,
            rows=counted(len(refused), "row", "rows"),
            most=job.request.max_refused,
            reasons=joined(rows, _("; ")),
            command=command,
            number=len(refused),
        )
    )


def _check_answered(job: Job, refused: Mapping[int, str], predictions: Sequence[Prediction]) -> None:
    """Raise `RequestError` if the server refused rows, and no other row has an answer."""
    if not refused or any(map(is_answered, predictions)):
        return
    row, reason = next(iter(refused.items()))
    raise RequestError(
        _(
            "{model} on {dataset}: no row has an answer, the server refused {rows} ({place}: "
            "{reason}). Correct the request or the server, then start anew with --force",
            model=job.candidate.name,
            dataset=job.dataset.name,
            rows=counted(len(refused), "row", "rows"),
            place=job.dataset.place(row),
            reason=reason,
        )
    )


def _warn_of_refused_prompts(job: Job, fields_by_row: Mapping[int, Fields]) -> None:
    """Warn of further prompts, which are no rows of the results, that the server refused."""
    for fields in fields_by_row.values():
        if "refused" in fields:
            warn(
                _(
                    "{model} on {dataset}: the server refused a further prompt: {reason}",
                    model=job.candidate.name,
                    dataset=job.dataset.name,
                    reason=fields["refused"],
                )
            )


def _prediction(job: Job, row: int, fields: Fields) -> Prediction:
    """A row's line of predictions.jsonl, with the row's cluster if rows have clusters."""
    line = job.evaluation.prediction(job, row, fields)
    if job.dataset.clusters:
        return {**line, "cluster": job.dataset.clusters[row]}
    return line


def _finish(job: Job, log: PredictionLog, plan: ScoringPlan, note: str) -> None:
    """Write the sorted predictions and the figures of a scored job, and print them.

    results.json has the figures first, then the origin of the outputs.
    """
    reasons = job.batch_plan.too_long
    too_long = [_prediction(job, row, {"too_long": reason}) for row, reason in reasons.items()]
    predictions = log.finish(too_long)
    _check_answered(job, log.refused, predictions)
    clusters = groups_of(predictions)
    kept_run = job.backend.run
    if kept_run:
        origin = _kept_origin(kept_run)
        note = _("rescored from {path}", path=kept_run / PREDICTIONS)
    else:
        origin = _origin(job, plan.identity)
    record: ResultsRecord = {"format": 2, "model": job.candidate.name, "dataset": job.dataset.name}
    if job.evaluation.tests:
        record["tests"] = job.evaluation.tests
    counts: ResultFacts = {"too_long": sum("too_long" in prediction for prediction in predictions)}
    if log.refused:
        counts["refused"] = len(log.refused)
    counts["cluster"] = job.dataset.cluster
    counts["clusters"] = None if clusters is None else len(set(clusters))
    conditions: ResultFacts = {
        "settings": plan.identity["settings"],
        "tuneyard": version(),
        "command": job.request.command_line.text(("--resume", "--force"), r" --(workers|ray)[ =]\S+"),
    }
    if kept_run:
        kept = kept_run / PREDICTIONS
        conditions["rescored_from"] = {"path": str(kept), "sha256": sha256(kept)}
    metrics, errors = measure(predictions)
    for error in errors:
        warn(_("{error}; the metric is left out", error=error))
    figures = {**job.evaluation.results(job, predictions), "metrics": metrics}
    results: Results = {**record, **figures, **counts, **origin, **conditions}
    write_json(job.folder / RESULTS, results)
    show(job, results, note)


def _kept_origin(run: Path) -> OutputOrigin:
    """Origin of the outputs that --rescore replays."""
    results = read_record(run / RESULTS, ResultsRecord)
    return cast(OutputOrigin, {name: value for name, value in results.items() if name in ORIGIN})


def _origin(job: Job, identity: RunIdentity) -> OutputOrigin:
    """Origin of the outputs that this run made."""
    settings, candidate = identity["settings"], job.candidate
    folders = [weighted.adapter.folder for weighted in candidate.adapters]
    count = len(job.rows)
    fingerprints = job.dataset.origin.fingerprints[:count]
    origin: OutputOrigin = {}
    if job.dataset.about:
        origin["about"] = job.dataset.about
    # None if no file records a training
    origin["trained_on"] = trained_on(
        folders, Path(job.request.model), job.dataset.name, fingerprints, job.request.dataset_dir
    )
    training_rows = job.dataset.origin.training_rows(count)
    if training_rows:
        origin["training_rows"] = training_rows
    names = [weighted.adapter.name for weighted in candidate.adapters]
    adapters = {}
    for name, weighted in zip(names, candidate.adapters, strict=True):
        key = name if names.count(name) == 1 else str(weighted.adapter.folder)
        adapters[key] = weighted
    made_by: OutputOrigin = {
        "base": job.request.model,
        "adapters": {name: str(weighted.adapter.folder) for name, weighted in adapters.items()},
        "weights": {name: weighted.weight for name, weighted in adapters.items()},
        "prompt": candidate.prompting.source,
        "dtype": settings["dtype"],
        "device": settings["device"],
        "versions": {name: settings[name] for name in VERSIONS if name in settings},
        "hashes": {
            "model": settings["model"],
            "adapters": {name: weighted.adapter.digest for name, weighted in adapters.items()},
            "data": identity["datasets"][job.dataset.name],
            "chat_template": candidate.prompting.digest,
        },
    }
    if job.shots:
        made_by["shots"] = {"from": job.shots.source, "rows": job.shots.rows}
    return {**origin, **made_by}


def show(job: Job, results: Results, note: str) -> None:
    """Print a job's figures in a line that ends with `note`, and its warnings."""
    name, evaluation = job.candidate.name, job.evaluation
    figures = evaluation.line(results)
    say(
        _(
            "{model}  {dataset}  {figures}  {note}",
            model=name,
            dataset=job.dataset.name,
            figures=figures,
            note=note,
        )
    )
    for warning in evaluation.warnings(results):
        warn(
            _(
                "{model} on {dataset}: {warning}",
                model=name,
                dataset=job.dataset.name,
                warning=warning,
            )
        )
    for finding in training_findings(name, "", len(job.rows), cast(ResultFacts, results)):
        warn_once(sentence(finding))
