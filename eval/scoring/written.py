"""What a run writes and says of a model on a dataset: a line for each row, the results, the screen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from core import version
from core.cli import command_line
from eval.backends.scorers import Fields
from eval.datasets.training import trained_on, trainings_of
from eval.metrics import measure
from eval.runs.results import Identity, Prediction
from eval.runs.training import training_warnings
from eval.scoring.job import Job
from eval.scoring.task import Task
from eval.statistics.rates import groups_of

PACKAGES = ("torch", "transformers", "tokenizers")


def prediction_of(job: Job, task: Task, row: int, fields: Fields) -> Prediction:
    """Return a row's line of predictions.jsonl, with its cluster where rows have one."""
    return clustered(job, task.prediction(job, row, fields))


def clustered(job: Job, line: Prediction) -> Prediction:
    """Return a line with its row's cluster where rows have one."""
    clusters = job.dataset.clusters
    return {**line, "cluster": clusters[int(str(line["row"]))]} if clusters else line


def results_of(job: Job, task: Task, predictions: list[Prediction], identity: Identity) -> dict[str, Any]:
    """Return results.json: the figures, then what they are of."""
    clusters, settings = groups_of(predictions), identity["settings"]
    return {
        "model": job.candidate.name,
        "set": job.dataset.name,
        **task.results(job, predictions),
        "metrics": measure(predictions),
        "refused": sum("refused" in p for p in predictions),
        "cluster": job.dataset.cluster,
        "clusters": None if clusters is None else len(set(clusters)),
        **(_kept_origin(job.kept) if job.kept else _origin(job, identity)),
        "settings": settings,
        "tuneyard": version(),
        "command": command_line(job.request.by or task.command, ("--resume", "--force")),
    }


ORIGIN = ("trained_on", "weights", "prompt", "dtype", "device", "versions", "hashes")
SHOTS = "shots"


def _kept_origin(kept: Mapping[str, Any]) -> dict[str, Any]:
    return {name: kept[name] for name in (*ORIGIN, SHOTS) if name in kept}


def _origin(job: Job, identity: Identity) -> dict[str, Any]:
    """Where the outputs come from, under the names of ORIGIN."""
    settings, candidate = identity["settings"], job.candidate
    adapters = candidate.adapters
    found = {
        "trained_on": _trained_on(job),
        "weights": {name: part.weight for name, part in adapters.items()},
        "prompt": candidate.prompting.source,
        "dtype": settings["dtype"],
        "device": settings["device"],
        "versions": {name: settings[name] for name in PACKAGES if name in settings},
        "hashes": {
            "model": settings["model"],
            "adapters": {name: part.adapter.digest for name, part in adapters.items()},
            "data": identity["sets"][job.dataset.name],
            "chat_template": candidate.prompting.digest,
        },
    }
    shown = {} if job.shots is None else {SHOTS: {"from": job.shots.source, "rows": job.shots.rows}}
    return {**{name: found[name] for name in ORIGIN}, **shown}


def _trained_on(job: Job) -> dict[str, object] | None:
    """Which of the rows the model was trained on; None where nothing tells that it was trained at all."""
    folders = [part.adapter.folder for part in job.candidate.parts]
    trainings = trainings_of(folders, Path(job.request.model))
    return trained_on(trainings, job.dataset.name, job.rows) if trainings else None


def tell(job: Job, task: Task, results: dict[str, Any], took: str) -> None:
    """Show a line of figures and how long they `took`, and what the user must be told of them."""
    click.echo(f"{job.candidate.name}  {job.dataset.name}  {task.line(results)}  {took}")
    for warning in task.warnings(results):
        warn(f"{job.candidate.name} on {job.dataset.name}: {warning}")
    for warning in training_warnings(job.candidate.name, len(job.rows), results.get("trained_on")):
        warn(warning)


def warn(text: str) -> None:
    """Show a warning."""
    click.echo(f"warning: {text}", err=True)
