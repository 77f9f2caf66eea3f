"""What a command does with a dataset: all that differs from one command to the next."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.backends.scorers import Fields, Scorer
from eval.datasets.dataset import EvalDataset
from eval.metrics.labels import UNKNOWN
from eval.runs.results import Prediction
from eval.scoring.candidates import Opened
from eval.scoring.job import Job
from eval.scoring.options import ScoringRequest

RAW = ("model_output", "transcript", "cut_short", "choices", "label_mass", "refused")
"""What a scorer returns of a row, as predictions.jsonl keeps it."""
Prepared = tuple[ScoringRequest, "Task", Sequence[EvalDataset]]
"""What a command makes of its options before any model is loaded: `score` takes it."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % limits, how many rows it tells of, and what the commonest answer would reach.

    `share`: it is one, from 0 to 1.
    """

    value: float
    ci95: tuple[float, float]
    n: int
    majority: float | None = None
    share: bool = True


class Task(ABC):
    """A command's own part of a run; here stands what most commands do, which generate answers."""

    command: str
    """Its module, e.g. `eval.nli`."""
    max_new_tokens: int

    def settings(self) -> dict[str, object]:
        """Return what a resumed run must have in common with the one before, beyond the shared options."""
        return {"max_new_tokens": self.max_new_tokens}

    def scorer(self, job: Job) -> Scorer:
        """Return what scores the examples, and in which batches."""
        return job.generating()

    @abstractmethod
    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return a row's line of predictions.jsonl (`row` among it) from what the scorer returned.

        A prompt that the context could not hold comes with no other field than `refused`, the reason.
        """

    def again(self, job: Job, kept: Prediction) -> Prediction:
        """Return a line of predictions.jsonl anew, from the outputs that it keeps (--rescore).

        `RequestError` where they do not tell what the options ask for.
        """
        fields = {name: kept[name] for name in RAW if name in kept}
        if "refused" in fields:
            fields = {"refused": fields["refused"]}
        return self.prediction(job, int(str(kept["row"])), fields)

    @abstractmethod
    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Return the figures of results.json; may write plots into `job.folder`."""

    @abstractmethod
    def line(self, results: Mapping[str, Any]) -> str:
        """Return the figures in a line, to stand after model and set on the screen."""

    def warnings(self, results: Mapping[str, Any]) -> list[str]:
        """Return what the user must be told of these results."""
        refused = results["refused"]
        return [f"{refused} prompts exceed the context and count as incorrect"] if refused else []

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
        shown = {name: self.figures(results) for name, results in found.items()}
        several = len(shown) > 1
        return {
            f"{name}: {figure}" if several else figure: one
            for name, own in shown.items()
            for figure, one in own.items()
        }


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
