"""From a request to results: dataset → prompts → answers → metrics → run, for every model and dataset.

What a command does with a dataset is its Task; the stages themselves (batches, log, resuming, several
processes) are here, once. docs/eval-nli.md describes the files.
"""

import time
from collections.abc import Sequence

import click

from core.files import versions, write_json
from eval.backends import shards
from eval.backends.scorers import Scorer, score_in_halves
from eval.datasets.dataset import EvalDataset
from eval.datasets.prompts import WITHOUT_BOS
from eval.runs.results import RESULTS, Identity, PredictionLog, begin_run, check_new, unless_refused
from eval.scoring.candidates import Opened, open_models
from eval.scoring.images import seeing, vision_settings
from eval.scoring.job import Job
from eval.scoring.options import ScoringRequest
from eval.scoring.rescore import rescore
from eval.scoring.task import Task
from eval.scoring.written import PACKAGES, prediction_of, results_of, tell, warn

SETTINGS = ("template", "bos", "apply", "quantize", "limit", "think", "cluster", "preset")


def score(request: ScoringRequest, task: Task, sets: Sequence[EvalDataset]) -> None:
    """Score every model on every dataset; what can be refused is refused before anything is written."""
    check_new(request.out, resume=request.resume, force=request.force)
    if request.rescore:
        rescore(request.rescore, request, task, sets)
        return
    score_opened(request, task, sets, open_models(request))


def score_opened(request: ScoringRequest, task: Task, sets: Sequence[EvalDataset], opened: Opened) -> None:
    """Score models that are open on every dataset, into a folder that was found fit."""
    opened = seeing(request, opened, sets)
    shots = next((len(one.shots.rows) for one in sets if one.shots), 0)
    opened = task.prompted(opened).with_shots(shots)
    identity = _identity(request, task, opened, sets)
    first = shards.first()
    if first:
        if request.preset and not opened.local.sampling.get("temperature"):
            warn("--preset: the model's generation_config does not sample: answers are greedy")
        if any(one.prompting.source == WITHOUT_BOS for one in opened.candidates):
            warn(
                "no chat template: prompted without the BOS that the tokenizer adds, as LLaMA-Factory's "
                "template `empty` trains; --bos begins prompts with it, as lm-evaluation-harness does"
            )
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
        refused = [prediction_of(job, task, row, {"refused": why}) for row, why in scorer.refused.items()]
        predictions = PredictionLog(job.folder, scorer.batches).finish(refused)
        results = results_of(job, task, predictions, identity)
        write_json(job.folder / RESULTS, results)
        seconds = time.monotonic() - began
        tell(job, task, results, f"{seconds:.1f} s ({pending / seconds:.1f} rows/s)")


def _answer(job: Job, task: Task, scorer: Scorer, log: PredictionLog, first: bool) -> None:
    """Append the predictions of this process's batches to the log, batch by batch."""
    from tqdm import tqdm

    mine, total = shards.share(log.pending), len(job.rows)
    name = f"{job.candidate.name} {job.dataset.name}"
    done, quiet = total - sum(map(len, mine)), None if first else True
    with tqdm(total=total, initial=done, desc=name, delay=2, leave=False, disable=quiet) as bar:
        for batch in mine:
            answers = score_in_halves(scorer, batch)
            log.append([prediction_of(job, task, row, a) for row, a in zip(batch, answers, strict=True)])
            bar.update(len(batch))


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
        **vision_settings(opened),
        **{f"shots of {one.name}": one.shots.digest for one in sets if one.shots},
        **versions(*PACKAGES),
    }
    return {
        "settings": settings,
        "models": {one.name: one.identity for one in opened.candidates},
        "prompts": {one.name: one.prompting.digest for one in opened.candidates},
        "sets": {dataset.name: dataset.digest for dataset in sets},
    }
