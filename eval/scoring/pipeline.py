"""Carry out a scoring plan: answers → predictions → figures → files, for every job.

The command's part is its Task. The stages (batches, log, resuming, workers) are here, once, and so is
--rescore, which reads kept answers. docs/eval-nli.md describes the files.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tuneyard.core import version
from tuneyard.core.cli.main import command_line
from tuneyard.core.datasets.manifest import manifest_beside
from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.errors.warn import warn, warn_once
from tuneyard.core.execution import Executor
from tuneyard.core.files import sha256, write_json
from tuneyard.core.language.translation import tr
from tuneyard.eval.backends.engine import Engine
from tuneyard.eval.backends.scorers import EngineRequest, Fields, Scorer, score_all, score_in_halves
from tuneyard.eval.datasets.dataset import EvalDataset
from tuneyard.eval.datasets.training import fingerprints_of, trained_on, training_rows_of
from tuneyard.eval.metrics import measure
from tuneyard.eval.read.contamination import training_warnings
from tuneyard.eval.read.results import (
    PREDICTIONS,
    RESULTS,
    Identity,
    Prediction,
    PredictionLog,
    scoring_run,
)
from tuneyard.eval.scoring.candidates import Opened
from tuneyard.eval.scoring.options import ScoringRequest
from tuneyard.eval.scoring.plan import VERSIONS, ScoringPlan, plan_scoring
from tuneyard.eval.scoring.remote import Part, parts_of, rows_of_part, score_parts, setup_of
from tuneyard.eval.scoring.task import Job, Task
from tuneyard.eval.statistics.rates import groups_of

if TYPE_CHECKING:
    from tqdm import tqdm

ORIGIN = (
    "about",
    "trained_on",
    "training_rows",
    "weights",
    "prompt",
    "dtype",
    "device",
    "versions",
    "hashes",
    "shots",
)
"""The fields of results.json about the origin of the outputs. --rescore keeps them."""


def score_opened(
    request: ScoringRequest, task: Task, datasets: Sequence[EvalDataset], opened: Opened
) -> None:
    """Score opened models on every dataset. `request.out` was checked before."""
    carry_out(plan_scoring(request, task, datasets, opened))


def carry_out(plan: ScoringPlan) -> None:
    """Do the jobs of a plan into its run folder."""
    request = plan.request
    run_folder = scoring_run(
        request.out,
        plan.identity,
        force=request.force,
        caller=request.by,
        summaries=plan.task.summaries,
    )
    with run_folder:
        loaded = plan.jobs[0].loaded
        if loaded and isinstance(loaded.model, Engine):
            _score_side_by_side(plan, loaded.model)
        elif loaded and loaded.workers:
            _score_in_workers(plan, loaded, loaded.workers)
        else:
            _score_by_candidate(plan)
    plan.task.finish(request.out, plan.models)


def _score_by_candidate(plan: ScoringPlan) -> None:
    """Score the jobs in their order, each candidate's with its adapters applied."""
    rescored = plan.request.rescore
    for _, jobs_of_candidate in groupby(plan.jobs, key=lambda job: job.candidate.name):
        jobs = list(jobs_of_candidate)
        with _weights(jobs[0]):
            for job in jobs:
                if rescored:
                    _rescore(job, rescored, plan)
                else:
                    _score(job, plan)


def _weights(job: Job) -> contextlib.AbstractContextManager[None]:
    """Apply the adapters of a job's candidate. --rescore has no model."""
    if job.loaded is None:
        return contextlib.nullcontext()
    return job.loaded.applied(job.candidate)


def _score(job: Job, plan: ScoringPlan) -> None:
    """Score a job and write its files, results.json last."""
    if job.scorer is None:
        _show_done(job)
        return
    began = time.monotonic()
    log = _open_log(job, job.scorer, plan.task)
    pending = sum(map(len, log.pending))
    try:
        _score_batches(job, job.scorer, plan.task, log)
    finally:
        job.scorer.release()
    note = _speed(pending, time.monotonic() - began)
    _finish(_answer_further(job), job.scorer, plan, log, note)


def _answer_further(job: Job) -> Job:
    """The job with its further answers, scored in this process."""
    if job.further is None:
        return job
    return replace(job, further_answers=score_all(job.further, "further answers"))


def _show_done(job: Job) -> None:
    """Say that a job was finished by the run that this one resumes."""
    click.echo(f"{job.candidate.name}  {job.dataset.name}  {tr('done before')}")


def _open_log(job: Job, scorer: Scorer, task: Task) -> PredictionLog:
    """Open a job's predictions, with the batches of an interrupted run."""
    record_numbers: Sequence[int] = ()
    if task.keeps_token_losses:
        record_numbers = [job.dataset.record_number(row) for row in range(len(job.rows))]
    return PredictionLog(
        job.folder,
        scorer.batches,
        job.dataset.clusters,
        record_numbers=record_numbers,
    )


def _finish(job: Job, scorer: Scorer, plan: ScoringPlan, log: PredictionLog, note: str) -> None:
    """Write the sorted predictions and the figures of a scored job, and print them."""
    too_long = []
    for row, reason in scorer.too_long.items():
        too_long.append(plan.task.prediction(job, row, {"too_long": reason}))
    results = results_of(job, plan.task, log.finish(too_long), plan.identity)
    write_json(job.folder / RESULTS, results)
    show(job, plan.task, results, note)


def _speed(rows: int, seconds: float) -> str:
    """Time and rows per second, for the end of a line."""
    return tr("{seconds} s ({rate} rows/s)", seconds=f"{seconds:.1f}", rate=f"{rows / seconds:.1f}")


def _score_side_by_side(plan: ScoringPlan, engine: Engine) -> None:
    """Score all candidates on a dataset together: vLLM answers the n-th batch of each in the same call."""
    jobs_by_dataset: dict[str, list[Job]] = {}
    for job in plan.jobs:
        jobs_by_dataset.setdefault(job.dataset.name, []).append(job)
    for jobs in jobs_by_dataset.values():
        _score_together(jobs, plan, engine)


def _score_together(jobs: Sequence[Job], plan: ScoringPlan, engine: Engine) -> None:
    """Score a dataset's jobs and write their files.

    A call has the batches of all jobs, also those that an interrupted run has scored: with fewer requests in
    a call, the others' last digits can change.
    """
    from tqdm import tqdm

    began = time.monotonic()
    scored: list[tuple[Job, Scorer, PredictionLog]] = []
    for job in jobs:
        if job.scorer is None:
            _show_done(job)
        else:
            scored.append((job, job.scorer, _open_log(job, job.scorer, plan.task)))
    pending = sum(len(batch) for _, _, log in scored for batch in log.pending)
    most_batches = max((len(scorer.batches) for _, scorer, _ in scored), default=0)
    with tqdm(total=pending, desc=jobs[0].dataset.name, delay=2, leave=False) as bar:
        for number in range(most_batches):
            requests: list[EngineRequest] = []
            waiting = []
            for job, scorer, log in scored:
                if number < len(scorer.batches):
                    batch = scorer.batches[number]
                    requests += scorer.requests(batch)
                    if batch in log.pending:
                        waiting.append((job, scorer, log, batch))
            if waiting:
                engine.prepare(requests)
            for job, scorer, log, batch in waiting:
                _score_batch(job, scorer, plan.task, log, batch)
                bar.update(len(batch))
    note = _speed(pending, time.monotonic() - began)
    for job, scorer, log in scored:
        _finish(_answer_further(job), scorer, plan, log, note)


def _score_in_workers(plan: ScoringPlan, opened: Opened, workers: Executor) -> None:
    """Score all jobs in the workers, and write the files of each as soon as its rows are there."""
    logs: dict[int, PredictionLog] = {}
    pending = 0
    for number, job in enumerate(plan.jobs):
        if job.scorer is not None:
            logs[number] = _open_log(job, job.scorer, plan.task)
            pending += sum(map(len, logs[number].pending))
    setup = setup_of(plan, opened)
    rows = rows_of_part(pending, workers, setup.base)
    parts: dict[int, list[Part]] = {}
    for number, log in logs.items():
        job = plan.jobs[number]
        parts[number] = parts_of(job, log.pending, rows)
        if job.further:
            parts[number] += parts_of(job, job.further.batches, rows, further=True)
    answers = score_parts(workers, setup, chain.from_iterable(parts.values()))
    began, scored = time.monotonic(), 0
    with contextlib.closing(answers):
        for number, job in enumerate(plan.jobs):
            if job.scorer is None:
                _show_done(job)
                continue
            further_answers = _take_answers(job, plan.task, logs[number], parts[number], answers)
            scored += sum(map(len, logs[number].pending))
            note = _speed(scored, time.monotonic() - began)  # of all jobs until now: they run side by side
            answered = replace(job, further_answers=further_answers)
            _finish(answered, job.scorer, plan, logs[number], note)


def _take_answers(
    job: Job, task: Task, log: PredictionLog, parts: Sequence[Part], answers: Iterator[list[list[Fields]]]
) -> dict[int, Fields]:
    """Log the answers to a job's parts; return the further answers by row."""
    further_answers: dict[int, Fields] = {}
    with _progress(job, sum(map(len, log.pending))) as bar:
        for part in parts:
            for batch, fields in zip(part.batches, next(answers), strict=True):
                if part.further:
                    further_answers.update(zip(batch, fields, strict=True))
                else:
                    _log_batch(job, task, log, batch, fields)
                    bar.update(len(batch))
    return dict(sorted(further_answers.items()))


def _score_batches(job: Job, scorer: Scorer, task: Task, log: PredictionLog) -> None:
    """Score the pending batches and log each batch."""
    with _progress(job, sum(map(len, log.pending))) as bar:
        for batch in log.pending:
            _score_batch(job, scorer, task, log, batch)
            bar.update(len(batch))


def _progress(job: Job, pending: int) -> "tqdm[NoReturn]":
    """Progress bar over the rows of a job, of which so many are not scored yet."""
    from tqdm import tqdm

    total = len(job.rows)
    return tqdm(
        total=total,
        initial=total - pending,
        desc=f"{job.candidate.name} {job.dataset.name}",
        delay=2,
        leave=False,
        disable=None,
    )


def _score_batch(job: Job, scorer: Scorer, task: Task, log: PredictionLog, batch: Sequence[int]) -> None:
    """Score a batch in this process and log its predictions."""
    _log_batch(job, task, log, batch, score_in_halves(scorer, batch))


def _log_batch(
    job: Job, task: Task, log: PredictionLog, batch: Sequence[int], scored: Sequence[Fields]
) -> None:
    """Log the predictions of a batch from the fields of its rows."""
    answers = dict(zip(batch, scored, strict=True))
    token_losses = []
    if task.keeps_token_losses:
        token_losses = [task.losses_by_token(job, row, fields) for row, fields in answers.items()]
    predictions = [task.prediction(job, row, fields) for row, fields in answers.items()]
    log.append(predictions, token_losses)


def results_of(job: Job, task: Task, predictions: list[Prediction], identity: Identity) -> dict[str, Any]:
    """Compose results.json: the figures first, then the origin of the outputs."""
    clusters = groups_of(predictions)
    origin = job.kept or _origin(job, identity)
    figures = task.results(job, predictions)
    return {
        "model": job.candidate.name,
        "set": job.dataset.name,
        **figures,
        "metrics": measure(predictions),
        "too_long": sum("too_long" in prediction for prediction in predictions),
        "cluster": job.dataset.cluster,
        "clusters": None if clusters is None else len(set(clusters)),
        **{name: origin[name] for name in ORIGIN if name in origin},
        "settings": identity["settings"],
        "tuneyard": version(),
        "command": command_line(
            job.request.by or job.request.command, ("--resume", "--force"), ("--workers", "--ray")
        ),
    }


def _origin(job: Job, identity: Identity) -> dict[str, Any]:
    """Origin of the outputs, under the names of ORIGIN."""
    settings, candidate = identity["settings"], job.candidate
    folders = [part.adapter.folder for part in candidate.parts]
    fingerprints = fingerprints_of(job.dataset, len(job.rows))
    origin: dict[str, Any] = {}
    compiled = manifest_beside(job.dataset.path)
    if compiled is not None and compiled[0].about:
        origin["about"] = compiled[0].about  # the dataset's description in its spec
    # None if no file records a training
    origin["trained_on"] = trained_on(
        folders, Path(job.request.model), job.dataset.name, fingerprints, job.request.dataset_dir
    )
    training_rows = training_rows_of(job.dataset, len(job.rows))
    if training_rows:
        origin["training_rows"] = training_rows
    adapters = candidate.adapters
    origin["weights"] = {name: part.weight for name, part in adapters.items()}
    origin["prompt"] = candidate.prompting.source
    origin["dtype"] = settings["dtype"]
    origin["device"] = settings["device"]
    origin["versions"] = {name: settings[name] for name in VERSIONS if name in settings}
    origin["hashes"] = {
        "model": settings["model"],
        "adapters": {name: part.adapter.digest for name, part in adapters.items()},
        "data": identity["sets"][job.dataset.name],
        "chat_template": candidate.prompting.digest,
    }
    if job.shots:
        origin["shots"] = {"from": job.shots.source, "rows": job.shots.rows}
    return origin


def show(job: Job, task: Task, results: Mapping[str, Any], note: str) -> None:
    """Print a job's figures in a line that ends with `note`, and its warnings."""
    name = job.candidate.name
    click.echo(f"{name}  {job.dataset.name}  {task.line(results)}  {note}")
    for warning in task.warnings(results):
        warn(tr("{model} on {dataset}: {text}", model=name, dataset=job.dataset.name, text=warning))
    for warning in training_warnings(name, len(job.rows), results):
        warn_once(warning)


def _rescore(job: Job, source: Path, plan: ScoringPlan) -> None:
    """Score the kept outputs of a job again and write its files."""
    kept = source / job.folder.relative_to(job.request.out) / PREDICTIONS
    lines = []
    for number, line in json_lines(kept):
        row, rows = line.get("row"), len(job.rows)
        if type(row) is not int or not 0 <= row < rows:
            raise ContentError(f"{kept}:{number}: row {show_value(row)}, expected one of the {rows} examples")
        lines.append(plan.task.again(job, line))
    log = PredictionLog(job.folder, [], job.dataset.clusters)
    results = results_of(job, plan.task, log.finish(lines), plan.identity)
    origin = {"path": str(kept), "sha256": sha256(kept)}
    write_json(job.folder / RESULTS, {**results, "rescored_from": origin})
    show(job, plan.task, results, tr("rescored from {folder}", folder=kept))
