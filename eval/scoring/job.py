"""One model on one dataset: what a task has its examples scored with."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.errors import RequestError
from core.prompt import Conversation, Message
from eval.backends.scorers import GenerationScorer, Generator, Scorer
from eval.datasets.dataset import EvalDataset, Shots
from eval.scoring.candidates import Candidate, Opened
from eval.scoring.options import ScoringRequest

if TYPE_CHECKING:
    from eval.backends.load import Model

Conversations = Mapping[int, list[Message]]
"""The messages of examples before their answers, by row."""


@dataclass(frozen=True, slots=True)
class Job:
    """A candidate, loaded and applied (--rescore: `loaded` is None), and a dataset.

    `folder` is OUT/model/dataset, `rows` the dataset's examples in its order, as far as --limit goes, and
    `kept` the results whose outputs are scored again.
    """

    request: ScoringRequest
    loaded: Opened | None
    candidate: Candidate
    dataset: EvalDataset
    folder: Path
    rows: Sequence[Conversation]
    kept: Mapping[str, Any] | None = None

    @property
    def opened(self) -> Opened:
        """The models of the run; `RequestError` where kept outputs are scored again without one."""
        if self.loaded is None:
            raise RequestError("--rescore has no model: this figure needs one, score without --rescore")
        return self.loaded

    @property
    def model(self) -> "Model":
        """The model, for what needs its probabilities; `RequestError` for a server."""
        return self.opened.local

    @property
    def generator(self) -> Generator:
        """What generates answers."""
        return self.opened.generator(self.candidate, sampled=bool(self.request.preset))

    @property
    def chooses(self) -> bool:
        """Whether the model's probabilities after these prompts are at hand, and mean the answer's."""
        return self.loaded is not None and self.request.backend == "hf" and not self.request.think

    def messages(self, rows: Collection[int] | None = None) -> Conversations:
        """Return the messages by row, of all rows or of some; of a candidate with shots, after these."""
        chosen = range(len(self.rows)) if rows is None else rows
        return {row: self._after_shots(self.shown(row)) for row in chosen}

    def images(self, row: int) -> tuple[str, ...]:
        """Return the files of a row's images."""
        return tuple(str(self.dataset.images[path]) for path in self.rows[row].images)

    def shown(self, row: int) -> list[Message]:
        """Return a row's messages as the model reads them, each `<image>` as the image's own tokens."""
        messages, images = self.rows[row].messages, self.images(row)
        vision = self.model.vision if images else None
        return vision.expanded(messages, images) if vision else messages

    def _after_shots(self, messages: list[Message]) -> list[Message]:
        if not self.shots:
            return messages
        begin = int(messages[0]["role"] == "system")
        return [*messages[:begin], *self.shots.turns, *messages[begin:]]

    @property
    def shots(self) -> Shots | None:
        """The examples before each question, None for a candidate without."""
        return self.dataset.shots if self.candidate.shots else None

    def prompts(self, rows: Collection[int] | None = None) -> dict[int, list[int]]:
        """Return the token ids of the prompts by row, of all rows or of some."""
        encode = self.candidate.prompting.encode
        return {row: encode(messages) for row, messages in self.messages(rows).items()}

    def generating(self, messages: Conversations | None = None) -> Scorer:
        """Return a scorer that generates an answer to every row, or to the given messages by row."""
        prompted = self.messages() if messages is None else messages
        return GenerationScorer(self.generator, prompted, self.request.max_new_tokens)
