"""--rescore RESULTS: the kept outputs of a run are taken and measured anew, without the model.

The folder that they are read from stays as it is. docs/eval-nli.md says what can be scored again.
"""

from collections.abc import Sequence
from pathlib import Path

from core.documents import json_lines
from core.errors import ContentError, RequestError, show_value
from core.files import read_object, sha256, write_json
from core.supervision import Turns
from eval.datasets.dataset import EvalDataset
from eval.datasets.prompts import Prompting
from eval.runs.results import (
    PREDICTIONS,
    RESULTS,
    Identity,
    Prediction,
    PredictionLog,
    begin_run,
    read_identity,
    unless_refused,
)
from eval.scoring.candidates import Candidate
from eval.scoring.options import ScoringRequest
from eval.scoring.pipeline import clustered, results_of, tell
from eval.scoring.task import Job, Task


def rescore(source: Path, request: ScoringRequest, task: Task, sets: Sequence[EvalDataset]) -> None:
    """Write what `task` makes of the outputs in `source` into another folder, for every model on `sets`.

    `RequestError` or `ContentError`, before anything is written, where the run is of another command, is
    not finished, or was of other data.
    """
    run = read_identity(source)
    _check(source, run, request, task, sets)
    jobs = [_job(source, request, model, dataset) for model in run["models"] for dataset in sets]
    settings = {**run["settings"], **task.settings(request), "cluster": request.cluster}
    identity: Identity = {**run, "settings": settings, "sets": {one.name: one.digest for one in sets}}
    begin_run(request.out, identity, force=request.force)
    with unless_refused(request.out):
        for job in jobs:
            _rescore(source / job.candidate.name / job.dataset.name / PREDICTIONS, job, task, identity)
    task.finish(request.out, list(run["models"]))


def _check(
    source: Path, run: Identity, request: ScoringRequest, task: Task, sets: Sequence[EvalDataset]
) -> None:
    if (command := run["settings"].get("command")) != task.command:
        raise RequestError(f"--rescore {source}: its outputs are of {command}: python -m {command} --rescore")
    here, there = source.resolve(), request.out.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise RequestError(f"--rescore {source}: --out {request.out}: expected a folder of its own")
    for one in sets:
        if one.name not in run["sets"]:
            raise RequestError(f"--rescore {source}: no outputs on {one.name}, on {', '.join(run['sets'])}")
        if one.digest != run["sets"][one.name]:
            raise ContentError(f"--rescore {source}: its outputs on {one.name} are of another {one.path}")


def _job(source: Path, request: ScoringRequest, model: str, dataset: EvalDataset) -> Job:
    """What was scored, without the model; `RequestError` where it is not finished."""
    path = source / model / dataset.name / RESULTS
    if not path.is_file():
        raise RequestError(f"{path.parent}: unfinished: finish it with --resume, then --rescore")
    prompting = Prompting(lambda _: [], lambda _: Turns([]), "kept outputs", "")
    return Job(request, None, Candidate(model, (), prompting), dataset, read_object(path))


def _rescore(source: Path, job: Job, task: Task, identity: Identity) -> None:
    lines = [_line(f"{source}:{number}", job, task, line) for number, line in json_lines(source)]
    log = PredictionLog(job.folder, [])
    log.tidy()
    results = results_of(job, task, log.finish(clustered(job, lines)), identity)
    origin = {"path": str(source), "sha256": sha256(source)}
    write_json(job.folder / RESULTS, {**results, "rescored_from": origin})
    tell(job, task, results, f"rescored from {source}")


def _line(place: str, job: Job, task: Task, kept: Prediction) -> Prediction:
    row = kept.get("row")
    if type(row) is not int or not 0 <= row < len(job.rows):
        raise ContentError(f"{place}: row {show_value(row)}, expected one of the {len(job.rows)} examples")
    return task.again(job, kept)
