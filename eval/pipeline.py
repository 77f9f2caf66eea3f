"""From a request to results: every model asked every set, in batches, with the base loaded once.

What a command does with a set is its Task; all else (the loop, the log, resuming, several processes)
is here, once. docs/eval-nli.md describes the files.
"""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from core.files import versions, write_json
from core.prompt import Conversation, Message
from eval.model import shards
from eval.model.ask import Asker, Choosing, Fields, Generating, ask_in_halves
from eval.model.questions import Questions
from eval.options import Request
from eval.output.results import (
    RESULTS,
    Identity,
    Prediction,
    PredictionLog,
    begin_run,
    check_new,
    unless_refused,
)
from eval.subjects import Opened, Subject, open_models

if TYPE_CHECKING:
    from eval.model.load import Model

PACKAGES = ("torch", "transformers", "tokenizers")


class Task(Protocol):
    """What a command does with a set: all that differs from one command to the next."""

    @property
    def command(self) -> str:
        """Its module, e.g. `eval.nli`."""

    def settings(self) -> dict[str, object]:
        """Return what a resumed run must have in common with the one before, beyond the shared options."""

    def asker(self, job: "Job") -> Asker:
        """Return who asks the rows, in which batches: `job.choosing(…)`, `job.generating()` or an own one."""

    def prediction(self, job: "Job", row: int, fields: Fields) -> Prediction:
        """Return a row's line of predictions.jsonl (`row` among it) from what the asker returned.

        A prompt that the context could not hold comes with no other field than `refused`, the reason.
        """

    def results(self, job: "Job", predictions: list[Prediction]) -> dict[str, object]:
        """Return the figures of results.json; may write plots into `job.folder`."""

    def line(self, results: Mapping[str, Any]) -> str:
        """Return the figures in a line, to stand after model and set on the screen."""

    def warnings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what the user must be told of these results."""


def score(request: Request, task: Task, sets: Sequence[Questions]) -> None:
    """Ask every model every set; what can be refused is refused before anything is written."""
    check_new(request.out, resume=request.resume, force=request.force)
    score_opened(request, task, sets, open_models(request))


def score_opened(request: Request, task: Task, sets: Sequence[Questions], opened: Opened) -> None:
    """Ask models that are open every set, in a folder that was found fit."""
    sets = [replace(q, conversations=q.conversations[: request.limit]) for q in sets]
    settings = _settings(request, task, opened)
    if shards.first():
        begin_run(request.out, _identity(settings, opened.subjects, sets), force=request.force)
    shards.wait()
    with unless_refused(request.out):
        for subject in opened.subjects:
            with opened.applied(subject):
                for questions in sets:
                    Job(request, settings, opened, subject, questions).run(task)


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one set: the questions as far as --limit goes, and who may be asked."""

    request: Request
    settings: dict[str, object]
    opened: Opened
    subject: Subject
    questions: Questions

    @property
    def folder(self) -> Path:
        """Where its files are: OUT/model/set."""
        return self.request.out / self.subject.name / self.questions.name

    @property
    def rows(self) -> list[Conversation]:
        """What is asked, in the order of the data."""
        return self.questions.conversations

    @property
    def model(self) -> "Model":
        """The model, for what needs its probabilities; `RequestError` for a server."""
        return self.opened.local

    def prompts(self) -> dict[int, list[int]]:
        """Return the ids of every row's prompt."""
        return {row: self.subject.prompting.encode(c.messages) for row, c in enumerate(self.rows)}

    def choosing(self, spellings: Mapping[str, Sequence[str]]) -> Asker:
        """Return one that compares the probabilities of labels, given with the texts that count as each."""
        return Choosing(self.model, self.prompts(), spellings, self.opened.budget)

    def generating(self, talks: Mapping[int, list[Message]] | None = None) -> Asker:
        """Return one that generates an answer to every row, or to the given conversations by row."""
        talks = {row: c.messages for row, c in enumerate(self.rows)} if talks is None else talks
        return Generating(self.opened.speaker(self.subject), talks, self.request.max_new_tokens)

    def run(self, task: Task) -> None:
        """Ask what has not been asked yet (of several processes, each its share), write results.json last."""
        who = f"{self.subject.name}  {self.questions.name}"
        if (self.folder / RESULTS).is_file():
            _say(f"{who}  done before")
            return
        began = time.monotonic()
        asker = task.asker(self)
        log = PredictionLog(self.folder, asker.batches)
        asked = sum(map(len, log.pending))
        if shards.first():
            log.tidy()
        shards.wait()
        self._ask(task, asker, log)
        shards.wait()
        if shards.first():
            refused = [task.prediction(self, row, {"refused": why}) for row, why in asker.refused.items()]
            predictions = PredictionLog(self.folder, asker.batches).finish(refused)
            results = self._results(task, predictions)
            write_json(self.folder / RESULTS, results)
            seconds = time.monotonic() - began
            _say(f"{who}  {task.line(results)}  {seconds:.1f} s ({asked / seconds:.1f} rows/s)")
            for warning in task.warnings(results):
                click.echo(f"warning: {self.subject.name} on {self.questions.name}: {warning}", err=True)
        shards.wait()

    def _ask(self, task: Task, asker: Asker, log: PredictionLog) -> None:
        from tqdm import tqdm

        mine = shards.share(log.pending)
        done = len(self.rows) - sum(map(len, mine))
        name = f"{self.subject.name} {self.questions.name}"
        quiet = not shards.first()
        with tqdm(total=len(self.rows), initial=done, desc=name, delay=2, leave=False, disable=quiet) as bar:
            for batch in mine:
                answers = ask_in_halves(asker, batch)
                log.append(task.prediction(self, row, a) for row, a in zip(batch, answers, strict=True))
                bar.update(len(batch))

    def _results(self, task: Task, predictions: list[Prediction]) -> dict[str, object]:
        return {
            "model": self.subject.name,
            "set": self.questions.name,
            **task.results(self, predictions),
            "weights": self.subject.per_adapter(lambda part: part.weight),
            "prompt": self.subject.prompting.source,
            "settings": self.settings,
            "dtype": self.opened.model.dtype,
            "device": self.opened.model.device,
            "versions": versions(*PACKAGES),
            "hashes": {
                "model": self.opened.digest,
                "adapters": self.subject.per_adapter(lambda part: part.adapter.digest),
                "data": self.questions.digest,
                "chat_template": self.subject.prompting.digest,
            },
            "command": _command(task),
        }


def _settings(request: Request, task: Task, opened: Opened) -> dict[str, object]:
    """Return what a run must have in common with the one that it resumes, beside adapters and data."""
    return {
        "command": task.command,
        "model": opened.digest,
        **task.settings(),
        **{name: getattr(request, name) for name in ("template", "apply", "quantize", "limit", "think")},
        "dtype": opened.model.dtype,
        "device": opened.model.device,
        "batch_tokens": opened.budget,
        **versions(*PACKAGES),
    }


def _identity(settings: dict[str, object], subjects: list[Subject], sets: Sequence[Questions]) -> Identity:
    return {
        "settings": settings,
        "models": {s.name: s.identity for s in subjects},
        "prompts": {s.name: s.prompting.digest for s in subjects},
        "sets": {questions.name: questions.digest for questions in sets},
    }


def _command(task: Task) -> str:
    kept = [argument for argument in sys.argv[1:] if argument not in ("--resume", "--force")]
    return f"python -m {task.command} {shlex.join(kept)}"


def _say(text: str) -> None:
    if shards.first():
        click.echo(text)
