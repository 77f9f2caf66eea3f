"""From a request to results: every model asked every set, in batches, with the base loaded once.

What a command does with a set is its Task; all else (the loop, the log, resuming, several processes)
is here, once. docs/eval-nli.md describes the files.
"""

import shlex
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from core import version
from core.files import versions, write_json
from core.prompt import Conversation, Message
from eval.backends import shards
from eval.backends.scorers import ChoiceScorer, Fields, GenerationScorer, Generator, Scorer, score_in_halves
from eval.datasets.dataset import EvalDataset
from eval.datasets.training import trained_on, trainings_of
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
from eval.scoring.candidates import Candidate, Opened, open_models
from eval.scoring.options import ScoringRequest
from eval.scoring.task import Task
from eval.statistics.rates import groups_of

if TYPE_CHECKING:
    from eval.backends.load import Model

PACKAGES = ("torch", "transformers", "tokenizers")
Conversations = Mapping[int, list[Message]]  # what is asked, by row


def score(request: ScoringRequest, task: Task, sets: Sequence[EvalDataset]) -> None:
    """Ask every model every set; what can be refused is refused before anything is written."""
    check_new(request.out, resume=request.resume, force=request.force)
    score_opened(request, task, sets, open_models(request))


def score_opened(request: ScoringRequest, task: Task, sets: Sequence[EvalDataset], opened: Opened) -> None:
    """Ask models that are open every set, in a folder that was found fit."""
    opened = task.asked(opened)
    settings = _settings(request, task, opened)
    if request.preset and not opened.local.sampling.get("temperature"):
        _warn("--preset: the model's generation_config does not sample: answers are greedy")
    if shards.first():
        begin_run(request.out, _identity(settings, opened.candidates, sets), force=request.force)
    shards.wait()
    with unless_refused(request.out):
        for candidate in opened.candidates:
            with opened.applied(candidate):
                for dataset in sets:
                    Job(request, settings, opened, candidate, dataset).run(task)
    if shards.first():
        task.finish(request.out, [candidate.name for candidate in opened.candidates])


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one set, of which --limit may ask the first rows alone, and who may be asked."""

    request: ScoringRequest
    settings: dict[str, object]
    opened: Opened
    candidate: Candidate
    dataset: EvalDataset

    @property
    def folder(self) -> Path:
        """Where its files are: OUT/model/set."""
        return self.request.out / self.candidate.name / self.dataset.name

    @property
    def rows(self) -> list[Conversation]:
        """What is asked, in the order of the data, as far as --limit goes."""
        return self.dataset.conversations[: self.request.limit]

    @property
    def model(self) -> "Model":
        """The model, for what needs its probabilities; `RequestError` for a server."""
        return self.opened.local

    @property
    def generator(self) -> Generator:
        """Who generates answers."""
        return self.opened.generator(self.candidate, sampled=bool(self.request.preset))

    @property
    def chooses(self) -> bool:
        """Whether the model's probabilities after these prompts are at hand, and mean the answer's."""
        return self.request.backend == "hf" and not self.request.think

    def talks(self, rows: Collection[int] | None = None) -> Conversations:
        """Return the conversations by row, of all rows or of some."""
        return {row: self.rows[row].messages for row in (range(len(self.rows)) if rows is None else rows)}

    def choosing(self, spellings: Mapping[str, Sequence[str]], talks: Conversations | None = None) -> Scorer:
        """Return one that compares the probabilities of labels, given with the texts that count as each."""
        asked = self.talks() if talks is None else talks
        prompts = {row: self.candidate.prompting.encode(talk) for row, talk in asked.items()}
        return ChoiceScorer(self.model, prompts, spellings, self.opened.budget)

    def generating(self, talks: Conversations | None = None) -> Scorer:
        """Return one that generates an answer to every row, or to the given conversations by row."""
        asked = self.talks() if talks is None else talks
        return GenerationScorer(self.generator, asked, self.request.max_new_tokens)

    def run(self, task: Task) -> None:
        """Ask what has not been asked yet (of several processes, each its share), write results.json last."""
        who = f"{self.candidate.name}  {self.dataset.name}"
        if (self.folder / RESULTS).is_file():
            _say(f"{who}  done before")
            return
        began = time.monotonic()
        scorer = task.scorer(self)
        log = PredictionLog(self.folder, scorer.batches)
        asked = sum(map(len, log.pending))
        if shards.first():
            log.tidy()
        shards.wait()
        self._ask(task, scorer, log)
        shards.wait()
        if shards.first():
            refused = [self._line(task, row, {"refused": why}) for row, why in scorer.refused.items()]
            predictions = PredictionLog(self.folder, scorer.batches).finish(refused)
            trained = self._trained_on()
            results = self._results(task, predictions, trained)
            write_json(self.folder / RESULTS, results)
            seconds = time.monotonic() - began
            _say(f"{who}  {task.line(results)}  {seconds:.1f} s ({asked / seconds:.1f} rows/s)")
            for warning in task.warnings(results):
                _warn(f"{self.candidate.name} on {self.dataset.name}: {warning}")
            for warning in training_warnings(self.candidate.name, len(self.rows), trained):
                _warn(warning)
        shards.wait()

    def _trained_on(self) -> dict[str, object] | None:
        """Which of the rows the model was trained on; None where nothing tells that it was trained at all."""
        folders = [part.adapter.folder for part in self.candidate.parts]
        trainings = trainings_of(folders, Path(self.request.model))
        return trained_on(trainings, self.dataset.name, self.rows) if trainings else None

    def _ask(self, task: Task, scorer: Scorer, log: PredictionLog) -> None:
        from tqdm import tqdm

        mine = shards.share(log.pending)
        done = len(self.rows) - sum(map(len, mine))
        name = f"{self.candidate.name} {self.dataset.name}"
        quiet = not shards.first()
        with tqdm(
            total=len(self.rows), initial=done, desc=name, delay=2, leave=False, disable=quiet or None
        ) as bar:
            for batch in mine:
                answers = score_in_halves(scorer, batch)
                log.append(self._line(task, row, a) for row, a in zip(batch, answers, strict=True))
                bar.update(len(batch))

    def _line(self, task: Task, row: int, fields: Fields) -> Prediction:
        """A row's line of predictions.jsonl, with its cluster where rows have one."""
        clusters = self.dataset.clusters
        return {**task.prediction(self, row, fields), **({"cluster": clusters[row]} if clusters else {})}

    def _results(
        self, task: Task, predictions: list[Prediction], trained: dict[str, object] | None
    ) -> dict[str, object]:
        return {
            "model": self.candidate.name,
            "set": self.dataset.name,
            **task.results(self, predictions),
            "refused": sum("refused" in p for p in predictions),
            "cluster": self.dataset.cluster,
            "clusters": None if (found := groups_of(predictions)) is None else len(set(found)),
            "trained_on": trained,
            "weights": self.candidate.per_adapter(lambda part: part.weight),
            "prompt": self.candidate.prompting.source,
            "settings": self.settings,
            "dtype": self.opened.model.dtype,
            "device": self.opened.model.device,
            "versions": versions(*PACKAGES),
            "tuneyard": version(),
            "hashes": {
                "model": self.opened.digest,
                "adapters": self.candidate.per_adapter(lambda part: part.adapter.digest),
                "data": self.dataset.digest,
                "chat_template": self.candidate.prompting.digest,
            },
            "command": _command(self.request.by or task.command),
        }


def _settings(request: ScoringRequest, task: Task, opened: Opened) -> dict[str, object]:
    """Return what a run must have in common with the one that it resumes, beside adapters and data."""
    return {
        "command": task.command,
        "model": opened.digest,
        **task.settings(),
        **{
            name: getattr(request, name)
            for name in ("template", "apply", "quantize", "limit", "think", "cluster", "preset")
        },
        **({"sampling": dict(opened.local.sampling)} if request.preset else {}),
        "dtype": opened.model.dtype,
        "device": opened.model.device,
        "batch_tokens": opened.budget,
        **versions(*PACKAGES),
    }


def _identity(
    settings: dict[str, object], candidates: list[Candidate], sets: Sequence[EvalDataset]
) -> Identity:
    return {
        "settings": settings,
        "models": {s.name: s.identity for s in candidates},
        "prompts": {s.name: s.prompting.digest for s in candidates},
        "sets": {dataset.name: dataset.digest for dataset in sets},
    }


def _command(module: str) -> str:
    kept = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--force")]
    return f"python -m {module} {shlex.join(kept)}"


def _warn(text: str) -> None:
    if shards.first():
        click.echo(f"warning: {text}", err=True)


def _say(text: str) -> None:
    if shards.first():
        click.echo(text)
