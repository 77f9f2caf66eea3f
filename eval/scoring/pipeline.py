"""From a request to results: dataset → prompts → answers → metrics → run, for every model and dataset.

What a command does with a dataset is its Task; the stages themselves (batches, log, resuming, several
processes) are here, once. docs/eval-nli.md describes the files.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from core import version
from core.cli import command_line
from core.files import versions, write_json
from eval.backends import shards
from eval.backends.scorers import Fields, Scorer, score_in_halves
from eval.datasets.dataset import EvalDataset
from eval.datasets.training import trained_on, trainings_of
from eval.metrics import measure
from eval.runs.results import (
    RESULTS,
    Identity,
    Prediction,
    PredictionLog,
    begin_run,
    check_new,
    unless_refused,
)
from eval.runs.training import training_warnings
from eval.scoring.candidates import Opened, open_models
from eval.scoring.job import Job
from eval.scoring.options import ScoringRequest
from eval.scoring.task import Task
from eval.statistics.rates import groups_of

PACKAGES = ("torch", "transformers", "tokenizers")
SETTINGS = ("template", "apply", "quantize", "limit", "think", "cluster", "preset")


def score(request: ScoringRequest, task: Task, sets: Sequence[EvalDataset]) -> None:
    """Score every model on every dataset; what can be refused is refused before anything is written."""
    check_new(request.out, resume=request.resume, force=request.force)
    score_opened(request, task, sets, open_models(request))


def score_opened(request: ScoringRequest, task: Task, sets: Sequence[EvalDataset], opened: Opened) -> None:
    """Score models that are open on every dataset, into a folder that was found fit."""
    opened = task.prompted(opened)
    identity = _identity(request, task, opened, sets)
    first = shards.first()
    if first:
        if request.preset and not opened.local.sampling.get("temperature"):
            _warn("--preset: the model's generation_config does not sample: answers are greedy")
        begin_run(request.out, identity, force=request.force)
    shards.wait()
    with unless_refused(request.out):
        for candidate in opened.candidates:
            with opened.applied(candidate):
                for dataset in sets:
                    folder = request.out / candidate.name / dataset.name
                    rows = dataset.conversations[: request.limit]
                    _score(Job(request, opened, candidate, dataset, folder, rows), task, identity, first)
    if first:
        task.finish(request.out, [candidate.name for candidate in opened.candidates])


def _score(job: Job, task: Task, identity: Identity, first: bool) -> None:
    """Score what has not been scored yet (of several processes, each its share), results.json last."""
    name = f"{job.candidate.name}  {job.dataset.name}"
    if (job.folder / RESULTS).is_file():
        if first:
            click.echo(f"{name}  done before")
        return
    began = time.monotonic()
    scorer = task.scorer(job)
    log = PredictionLog(job.folder, scorer.batches)
    pending = sum(map(len, log.pending))
    if first:
        log.tidy()
    shards.wait()
    _answer(job, task, scorer, log, first)
    shards.wait()
    if first:
        refused = [_prediction(job, task, row, {"refused": why}) for row, why in scorer.refused.items()]
        predictions = PredictionLog(job.folder, scorer.batches).finish(refused)
        results = _results(job, task, predictions, identity)
        write_json(job.folder / RESULTS, results)
        seconds = time.monotonic() - began
        click.echo(f"{name}  {task.line(results)}  {seconds:.1f} s ({pending / seconds:.1f} rows/s)")
        for warning in task.warnings(results):
            _warn(f"{job.candidate.name} on {job.dataset.name}: {warning}")
        for warning in training_warnings(job.candidate.name, len(job.rows), results["trained_on"]):
            _warn(warning)


def _answer(job: Job, task: Task, scorer: Scorer, log: PredictionLog, first: bool) -> None:
    """Append the predictions of this process's batches to the log, batch by batch."""
    from tqdm import tqdm

    mine, total = shards.share(log.pending), len(job.rows)
    name = f"{job.candidate.name} {job.dataset.name}"
    done, quiet = total - sum(map(len, mine)), None if first else True
    with tqdm(total=total, initial=done, desc=name, delay=2, leave=False, disable=quiet) as bar:
        for batch in mine:
            answers = score_in_halves(scorer, batch)
            log.append([_prediction(job, task, row, a) for row, a in zip(batch, answers, strict=True)])
            bar.update(len(batch))


def _prediction(job: Job, task: Task, row: int, fields: Fields) -> Prediction:
    """A row's line of predictions.jsonl, with its cluster where rows have one."""
    clusters = job.dataset.clusters
    return {**task.prediction(job, row, fields), **({"cluster": clusters[row]} if clusters else {})}


def _results(job: Job, task: Task, predictions: list[Prediction], identity: Identity) -> dict[str, Any]:
    candidate, settings, clusters = job.candidate, identity["settings"], groups_of(predictions)
    adapters = candidate.adapters
    return {
        "model": candidate.name,
        "set": job.dataset.name,
        **task.results(job, predictions),
        "metrics": measure(predictions),
        "refused": sum("refused" in p for p in predictions),
        "cluster": job.dataset.cluster,
        "clusters": None if clusters is None else len(set(clusters)),
        "trained_on": _trained_on(job),
        "weights": {name: part.weight for name, part in adapters.items()},
        "prompt": candidate.prompting.source,
        "settings": settings,
        "dtype": settings["dtype"],
        "device": settings["device"],
        "versions": {name: settings[name] for name in PACKAGES if name in settings},
        "tuneyard": version(),
        "hashes": {
            "model": settings["model"],
            "adapters": {name: part.adapter.digest for name, part in adapters.items()},
            "data": identity["sets"][job.dataset.name],
            "chat_template": candidate.prompting.digest,
        },
        "command": command_line(job.request.by or task.command, ("--resume", "--force")),
    }


def _trained_on(job: Job) -> dict[str, object] | None:
    """Which of the rows the model was trained on; None where nothing tells that it was trained at all."""
    folders = [part.adapter.folder for part in job.candidate.parts]
    trainings = trainings_of(folders, Path(job.request.model))
    return trained_on(trainings, job.dataset.name, job.rows) if trainings else None


def _identity(request: ScoringRequest, task: Task, opened: Opened, sets: Sequence[EvalDataset]) -> Identity:
    """Return what a run must have in common with the one that it resumes."""
    settings = {
        "command": task.command,
        "model": opened.digest,
        **task.settings(),
        **{name: getattr(request, name) for name in SETTINGS},
        **({"sampling": dict(opened.local.sampling)} if request.preset else {}),
        "dtype": opened.model.dtype,
        "device": opened.model.device,
        "batch_tokens": opened.budget,
        **versions(*PACKAGES),
    }
    return {
        "settings": settings,
        "models": {one.name: one.identity for one in opened.candidates},
        "prompts": {one.name: one.prompting.digest for one in opened.candidates},
        "sets": {dataset.name: dataset.digest for dataset in sets},
    }


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)
