"""What a command does with a dataset (its Task), and one model on one dataset, which it is done for (Job)."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tuneyard.core.errors import RequestError, counted
from tuneyard.core.prompt import Conversation
from tuneyard.eval.backends.load import Model
from tuneyard.eval.backends.scorers import Fields, Generator, Messages, Scorer, generating
from tuneyard.eval.datasets.dataset import EvalDataset, Shots
from tuneyard.eval.metrics.labels import UNKNOWN
from tuneyard.eval.read.results import REPEATS, Prediction
from tuneyard.eval.scoring.candidates import Candidate, Opened
from tuneyard.eval.scoring.options import ScoringRequest

RAW = ("model_output", "transcript", "cut_short", "choices", "label_mass", "refused")
"""What a scorer returns of a row, as predictions.jsonl keeps it."""


@dataclass(frozen=True)
class Job:
    """A candidate, loaded and applied (--rescore: None), and a dataset; `kept`: results to score again."""

    request: ScoringRequest
    loaded: Opened | None
    candidate: Candidate
    dataset: EvalDataset
    kept: Mapping[str, Any] | None = None
    repeat: int = 1
    """Which of --repeats this is."""

    @property
    def folder(self) -> Path:
        """OUT/model/dataset, of a further repeat a folder in it."""
        return self.folder_of(self.repeat)

    def folder_of(self, repeat: int) -> Path:
        """Return the folder of one of the repeats."""
        first = self.request.out / self.candidate.name / self.dataset.name
        return first / REPEATS / str(repeat) if repeat > 1 else first

    @property
    def label(self) -> str:
        """The candidate's name as it is shown, with the number of a further repeat."""
        return f"{self.candidate.name} (repeat {self.repeat})" if self.repeat > 1 else self.candidate.name

    @cached_property
    def rows(self) -> Sequence[Conversation]:
        """The dataset's examples in its order, as far as --limit goes."""
        return self.dataset.conversations[: self.request.limit]

    @property
    def opened(self) -> Opened:
        """The models of the run; `RequestError` where kept outputs are scored again without one."""
        if self.loaded is None:
            raise RequestError("--rescore has no model: this figure needs one, score without --rescore")
        return self.loaded

    @property
    def model(self) -> Model:
        """The model, for what needs its probabilities; `RequestError` for a server."""
        return self.opened.local

    @property
    def generator(self) -> Generator:
        """What generates answers."""
        return self.opened.generator(self.candidate, sampled=bool(self.request.preset), repeat=self.repeat)

    @property
    def shots(self) -> Shots | None:
        """The examples before each question, None for a candidate without."""
        return self.dataset.shots if self.candidate.shots else None

    def messages(self, rows: Collection[int] | None = None) -> dict[int, Messages]:
        """Return the messages by row, of all rows or of some; of a candidate with shots, after these."""
        shots, found = self.shots.turns if self.shots else [], {}
        for row in range(len(self.rows)) if rows is None else rows:
            asked = self.shown(row)
            begin = int(asked[0]["role"] == "system")
            found[row] = [*asked[:begin], *shots, *asked[begin:]]
        return found

    def images(self, row: int) -> tuple[str, ...]:
        """Return the files of a row's images."""
        return tuple(str(self.dataset.images[path]) for path in self.rows[row].images)

    def shown(self, row: int) -> Messages:
        """Return a row's messages as the model reads them, each `<image>` as the image's own tokens."""
        messages, images = self.rows[row].messages, self.images(row)
        vision = self.model.vision if images else None
        return vision.expanded(messages, images) if vision else messages

    def prompts(self, rows: Collection[int] | None = None) -> dict[int, list[int]]:
        """Return the token ids of the prompts by row, of all rows or of some."""
        encode = self.candidate.prompting.encode
        return {row: encode(messages) for row, messages in self.messages(rows).items()}

    def generating(self, messages: Mapping[int, Messages] | None = None) -> Scorer:
        """Return a scorer that generates an answer to every row, or to the given messages by row."""
        prompted = self.messages() if messages is None else messages
        return generating(self.generator, prompted, self.request.max_new_tokens)


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure (`share`: from 0 to 1), its 95 % limits and rows, and what the commonest answer reaches."""

    value: float
    ci95: tuple[float, float]
    n: int
    majority: float | None = None
    share: bool = True


class Task(ABC):
    """A command's own part of a run; here stands what most commands do, which generate answers."""

    command: str
    """Its module, e.g. `eval.nli`."""
    kept: tuple[str, ...] = ("max_new_tokens",)
    """The options (the task's own, else of the request) that change an answer or a figure."""
    summaries: tuple[str, ...] = ()
    """The files that the command writes into OUT itself once every model is done."""
    refused = "counted as incorrect"
    """What becomes of prompts that exceed the context."""

    def settings(self, request: ScoringRequest) -> dict[str, object]:
        """Return what a resumed run must have in common with the one before, beyond the shared options."""
        return {name: getattr(self if hasattr(self, name) else request, name) for name in self.kept}

    def scorer(self, job: Job) -> Scorer:
        """Return what scores the examples, and in which batches."""
        return job.generating()

    @abstractmethod
    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return a line of predictions.jsonl from a scorer's fields (too long a prompt: `refused` alone)."""

    def again(self, job: Job, kept: Prediction) -> Prediction:
        """Return a line anew from the outputs it keeps (--rescore); `RequestError` where they do not tell."""
        fields = {name: kept[name] for name in RAW if name in kept}
        if "refused" in fields:
            fields = {"refused": fields["refused"]}
        return self.prediction(job, kept["row"], fields)

    @abstractmethod
    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Return the figures of results.json; may write plots into `job.folder`."""

    @abstractmethod
    def line(self, results: Mapping[str, Any]) -> str:
        """Return the figures in a line, to stand after model and set on the screen."""

    def warnings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what the user must be told of these results."""
        refused = results["refused"]
        if not refused:
            return []
        return [f"{counted(refused, 'prompt')} too long for the context: {self.refused}"]

    def fitted(self, opened: Opened) -> "Task":  # noqa: ARG002
        """Return the command with the defaults that depend on the model."""
        return self

    def prompted(self, opened: Opened) -> Opened:
        """Return the models as this command prompts them."""
        return opened

    def finish(self, out: Path, models: Sequence[str]) -> None:  # noqa: B027  most have nothing to add
        """Write and show what is told of all sets together, once every model is done."""

    def figures(self, results: Mapping[str, Any]) -> dict[str, Figure]:
        """Return the figures of a set that a table of several commands shows, by name."""
        return {"accuracy": Figure(*(results[name] for name in ("accuracy", "ci95", "n", "majority")))}

    def table(self, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
        """Return the figures of all sets, given the results of each by its name."""
        shown = {
            name: with_means(self.figures(results), results.get("repeats")) for name, results in found.items()
        }
        several = len(shown) > 1
        return {
            f"{name}: {figure}" if several else figure: one
            for name, own in shown.items()
            for figure, one in own.items()
        }


def with_means(figures: Mapping[str, Figure], repeats: Mapping[str, Any] | None) -> dict[str, Figure]:
    """Return the figures of a dataset, those with repeats as the repeats' mean and its interval."""
    found = dict(figures)
    for name, one in (repeats["figures"] if repeats else {}).items():
        low, high = one["ci95"]
        found[name] = replace(figures[name], value=one["mean"], ci95=(low, high))
    return found


def figures_of(rates: Mapping[str, Mapping[str, Any] | None]) -> dict[str, Figure]:
    """Return the rates of results.json that are known as figures, by name."""
    return {name: Figure(one["value"], one["ci95"], one["n"]) for name, one in rates.items() if one}


def share_line(share: Mapping[str, Any]) -> str:
    """Return a rate of results.json with its limits: `85.0% [80.1%, 89.2%]`."""
    low, high = share["ci95"]
    return f"{share['value']:.1%} [{low:.1%}, {high:.1%}]"


def line_of(job: Job, row: int, fields: Fields) -> Prediction:
    """Return the fields that all predictions have; the answer is not taken for anything yet."""
    record, asked = job.dataset.records[row], job.rows[row]
    return {
        "instruction": asked.messages[-1]["content"],
        "expected_output": asked.answer,
        "model_output": str(fields.get("model_output", "")),
        "predicted_output": UNKNOWN,
        "idx": record.get("idx", -1),
        "row": row,
        **{name: value for name, value in fields.items() if name == "refused"},
    }
