"""From a request to results: dataset → prompts → answers → metrics → run, for every model and dataset.

What a command does with a dataset is its Task; the stages themselves (batches, log, resuming, several
processes; --rescore, which takes kept answers) are here, once. docs/eval-nli.md describes the files.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import click

from tuneyard.core import version
from tuneyard.core.cli import command_line
from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import read_object, sha256, versions, write_json
from tuneyard.core.supervision import Turns
from tuneyard.eval.backends import shards
from tuneyard.eval.backends.scorers import score_in_halves
from tuneyard.eval.datasets.dataset import EvalDataset
from tuneyard.eval.datasets.prompts import WITHOUT_BOS, Prompting
from tuneyard.eval.datasets.training import fingerprints_of, trained_on, training_rows_of
from tuneyard.eval.metrics import measure
from tuneyard.eval.read.contamination import training_rows_warning, training_warnings
from tuneyard.eval.read.results import (
    PREDICTIONS,
    RESULTS,
    Identity,
    Prediction,
    PredictionLog,
    read_identity,
    scoring_run,
    shown_command,
)
from tuneyard.eval.scoring.candidates import Candidate, Opened
from tuneyard.eval.scoring.options import ScoringRequest
from tuneyard.eval.scoring.repeats import repeated, repeats_lines
from tuneyard.eval.scoring.task import Job, Task
from tuneyard.eval.statistics.rates import groups_of

SETTINGS = ("template", "bos", "apply", "quantize", "limit", "think", "cluster", "preset")
PACKAGES = ("torch", "transformers", "tokenizers")
ORIGIN = (
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
"""What results.json says of where outputs come from, and keeps where they are scored again."""


def score_opened(request: ScoringRequest, task: Task, sets: Sequence[EvalDataset], opened: Opened) -> None:
    """Score models that are open on every dataset, into a folder that was found fit."""
    opened = opened.seeing(request, sets)
    task = task.fitted(opened)
    opened = task.prompted(opened).with_shots(sets)
    identity = _identity(request, task, opened, sets)
    if shards.first():
        if request.preset and not opened.local.sampling.get("temperature"):
            if request.repeats > 1:
                raise RequestError(
                    "--repeats: the model's generation_config does not sample, so that each repeat would be "
                    "the same; leave it out, or set do_sample and temperature in generation_config.json"
                )
            warn("--preset: the model's generation_config does not sample: answers are greedy")
        if any(one.prompting.source == WITHOUT_BOS for one in opened.candidates):
            warn(
                "no chat template: prompted without the BOS that the tokenizer adds, as LLaMA-Factory's "
                "template `empty` trains; --bos begins prompts with it, as lm-evaluation-harness does"
            )
        for one in sets:
            if one.other_prompts:
                warn(
                    f"{one.path}: training asks these rows in other words (a prefix, a system text): "
                    f"--dataset {one.other_prompts} asks the held-out ones as they are trained"
                )
    begun = scoring_run(
        request.out,
        identity,
        force=request.force,
        first=shards.first(),
        caller=_caller(request, task),
        summaries=task.summaries,
    )
    with begun:
        shards.wait()
        for candidate in opened.candidates:
            with opened.applied(candidate):
                for dataset in sets:
                    for repeat in _repeats(request):
                        _score(Job(request, opened, candidate, dataset, repeat=repeat), task, identity)
    if shards.first():
        task.finish(request.out, [candidate.name for candidate in opened.candidates])


def _repeats(request: ScoringRequest) -> range:
    """Return the repeats in their order: the first comes last, whose results.json tells of all of them."""
    return range(request.repeats, 0, -1)


def _caller(request: ScoringRequest, task: Task) -> str:
    """Return the module that called the task's command, "" if the user did."""
    return "" if request.by == task.command else request.by


def _score(job: Job, task: Task, identity: Identity) -> None:
    """Score what has not been scored yet (of several processes, each its share), results.json last."""
    from tqdm import tqdm

    first = shards.first()
    if (job.folder / RESULTS).is_file():
        if first:
            click.echo(f"{job.label}  {job.dataset.name}  done before")
        return
    began = time.monotonic()
    scorer = task.scorer(job)
    log = PredictionLog(job.folder, scorer.batches, job.dataset.clusters, tidy=first)
    pending, mine = sum(map(len, log.pending)), shards.share(log.pending)
    shards.wait()
    total = len(job.rows)
    bar = tqdm(
        total=total,
        initial=total - sum(map(len, mine)),
        desc=f"{job.label} {job.dataset.name}",
        delay=2,
        leave=False,
        disable=None if first else True,
    )
    with bar:
        for batch in mine:
            answers = zip(batch, score_in_halves(scorer, batch), strict=True)
            log.append([task.prediction(job, row, fields) for row, fields in answers])
            bar.update(len(batch))
    shards.wait()
    if first:
        refused = [task.prediction(job, row, {"refused": why}) for row, why in scorer.refused.items()]
        predictions = log.finish(refused)
        results = results_of(job, task, predictions, identity)
        write_json(job.folder / RESULTS, results)
        seconds = time.monotonic() - began
        tell(job, task, results, f"{seconds:.1f} s ({pending / seconds:.1f} rows/s)")


def _identity(request: ScoringRequest, task: Task, opened: Opened, sets: Sequence[EvalDataset]) -> Identity:
    """Return what a run must have in common with the one that it resumes."""
    vision = getattr(opened.model, "vision", None)
    settings = {
        "command": task.command,
        "model": opened.digest,
        **task.settings(request),
        **{name: getattr(request, name) for name in SETTINGS},
        **({"sampling": dict(opened.local.sampling), "repeats": request.repeats} if request.preset else {}),
        "dtype": opened.model.dtype,
        "device": opened.model.device,
        "batch_tokens": opened.budget,
        **(vision.settings if vision else {}),
        **{f"shots of {one.name}": one.shots.digest for one in sets if one.shots},
        **versions(*PACKAGES),
    }
    return {
        "settings": settings,
        "models": {one.name: one.identity for one in opened.candidates},
        "prompts": {one.name: one.prompting.digest for one in opened.candidates},
        "sets": {dataset.name: dataset.digest for dataset in sets},
    }


def results_of(job: Job, task: Task, predictions: list[Prediction], identity: Identity) -> dict[str, Any]:
    """Return results.json: the figures, then what they are of."""
    clusters = groups_of(predictions)
    origin = job.kept or _origin(job, identity)
    figures = task.results(job, predictions)
    return {
        "model": job.candidate.name,
        "set": job.dataset.name,
        **figures,
        **_repeated(job, task, figures),
        "metrics": measure(predictions),
        "refused": sum("refused" in p for p in predictions),
        "cluster": job.dataset.cluster,
        "clusters": None if clusters is None else len(set(clusters)),
        **{name: origin[name] for name in ORIGIN if name in origin},
        "settings": identity["settings"],
        "tuneyard": version(),
        "command": command_line(job.request.by or task.command, ("--resume", "--force")),
    }


def _repeated(job: Job, task: Task, results: Mapping[str, Any]) -> dict[str, object]:
    """Return which repeat this is or, in the first, what all of them give together; {} if there is one."""
    if job.request.repeats == 1:
        return {}
    if job.repeat > 1:
        return {"repeat": job.repeat}
    others = [read_object(job.folder_of(repeat) / RESULTS) for repeat in range(2, job.request.repeats + 1)]
    return {"repeats": repeated([task.figures(one) for one in (results, *others)])}


def _origin(job: Job, identity: Identity) -> dict[str, Any]:
    """Where the outputs come from, under the names of ORIGIN."""
    settings, candidate = identity["settings"], job.candidate
    training_rows = training_rows_of(job.dataset, len(job.rows))
    folders = [part.adapter.folder for part in candidate.parts]
    return {
        # None where nothing tells that the model was trained at all
        "trained_on": trained_on(
            folders,
            Path(job.request.model),
            job.dataset.name,
            fingerprints_of(job.dataset, len(job.rows)),
        ),
        **({"training_rows": training_rows} if training_rows else {}),
        "weights": {name: part.weight for name, part in candidate.adapters.items()},
        "prompt": candidate.prompting.source,
        "dtype": settings["dtype"],
        "device": settings["device"],
        "versions": {name: settings[name] for name in PACKAGES if name in settings},
        "hashes": {
            "model": settings["model"],
            "adapters": {name: part.adapter.digest for name, part in candidate.adapters.items()},
            "data": identity["sets"][job.dataset.name],
            "chat_template": candidate.prompting.digest,
        },
        **({"shots": {"from": job.shots.source, "rows": job.shots.rows}} if job.shots else {}),
    }


def tell(job: Job, task: Task, results: Mapping[str, Any], took: str) -> None:
    """Show a line of figures and how long they `took`, and what the user must be told of them."""
    name = job.label
    click.echo(f"{name}  {job.dataset.name}  {task.line(results)}  {took}")
    for line in repeats_lines(results["repeats"]) if "repeats" in results else ():
        click.echo(f"{name}  {job.dataset.name}  {line}")
    for warning in task.warnings(results):
        warn(f"{name} on {job.dataset.name}: {warning}")
    if job.repeat > 1:  # the same rows: said of the first repeat
        return
    for warning in training_warnings(name, len(job.rows), results.get("trained_on")):
        warn(warning)
    for warning in training_rows_warning(name, len(job.rows), results.get("training_rows")):
        warn(warning)


def warn(text: str) -> None:
    """Show a warning."""
    click.echo(f"warning: {text}", err=True)


def rescore(source: Path, request: ScoringRequest, task: Task, sets: Sequence[EvalDataset]) -> None:
    """Write what `task` makes of outputs in `source` into another folder; what is wrong is said before."""
    run = read_identity(source)
    jobs = _kept_jobs(source, run, request, task, sets)
    settings = {**run["settings"], **task.settings(request), "cluster": request.cluster}
    identity: Identity = {**run, "settings": settings, "sets": {one.name: one.digest for one in sets}}
    begun = scoring_run(
        request.out,
        identity,
        force=request.force,
        caller=_caller(request, task),
        summaries=task.summaries,
    )
    with begun:
        for job in jobs:
            kept = source / job.folder.relative_to(request.out) / PREDICTIONS
            lines = list(_again(kept, job, task))
            log = PredictionLog(job.folder, [], job.dataset.clusters)
            results = results_of(job, task, log.finish(lines), identity)
            origin = {"path": str(kept), "sha256": sha256(kept)}
            write_json(job.folder / RESULTS, {**results, "rescored_from": origin})
            tell(job, task, results, f"rescored from {kept}")
    task.finish(request.out, list(run["models"]))


def _kept_jobs(
    source: Path, run: Identity, request: ScoringRequest, task: Task, sets: Sequence[EvalDataset]
) -> list[Job]:
    """What was scored, without the model; errors where it is of something else or not finished."""
    if (command := run["settings"].get("command")) != task.command:
        name = shown_command(str(command))
        raise RequestError(f"--rescore {source}: its outputs are of {command}: {name} --rescore")
    here, there = source.resolve(), request.out.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise RequestError(f"--rescore {source}: --out {request.out}: expected a folder of its own")
    for one in sets:
        if one.name not in run["sets"]:
            raise RequestError(f"--rescore {source}: no outputs on {one.name}, on {', '.join(run['sets'])}")
        if one.digest != run["sets"][one.name]:
            raise ContentError(f"--rescore {source}: its outputs on {one.name} are of another {one.path}")
    prompting = Prompting(lambda _: [], lambda _: Turns([]), "kept outputs", "")
    jobs = []
    for model, dataset, repeat in product(run["models"], sets, _repeats(request)):
        job = Job(request, None, Candidate(model, (), prompting), dataset, repeat=repeat)
        path = source / job.folder.relative_to(request.out) / RESULTS
        if not path.is_file():
            raise RequestError(f"{path.parent}: unfinished: finish it with --resume, then --rescore")
        jobs.append(replace(job, kept=read_object(path)))
    return jobs


def _again(source: Path, job: Job, task: Task) -> Iterator[Prediction]:
    for number, line in json_lines(source):
        row, rows = line.get("row"), len(job.rows)
        if type(row) is not int or not 0 <= row < rows:
            raise ContentError(
                f"{source}:{number}: row {show_value(row)}, expected one of the {rows} examples"
            )
        yield task.again(job, line)
