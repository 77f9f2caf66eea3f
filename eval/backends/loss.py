"""Scoring a row twice: how likely its answer is to the model, and what the model answers by itself."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from core.supervision import SupervisedText
from eval.backends.likelihood import losses
from eval.backends.score import plan_batches
from eval.backends.scorers import DIGITS, Fields, Scorer

if TYPE_CHECKING:
    from eval.backends.load import Model


class LikelihoodScorer:
    """Gives the loss of every row, and a generated answer beside it where one is asked for."""

    def __init__(
        self, model: "Model", texts: Mapping[int, SupervisedText], generating: Scorer | None, budget: int
    ) -> None:
        """Prepare to read texts by row; rows that `generating` cannot ask are read all the same."""
        self.model, self.texts, self.generating, self.budget = model, texts, generating, budget
        self.refused: dict[int, str] = {}
        planned = generating.batches if generating else []
        rest = texts.keys() - {row for batch in planned for row in batch}
        self.batches = planned + plan_batches({row: len(texts[row].ids) for row in rest}, budget)

    def score(self, batch: Sequence[int]) -> list[Fields]:
        """Return `loss` (nats, summed), `tokens` that carry it, and `model_output` or `refused`;
        `example_tokens` is how long the whole was before it was cut (`truncated`).

        `ContentError` if a loss is no finite number.
        """
        said = self._said(batch)
        found = losses(self.model, {row: self.texts[row] for row in batch}, self.budget)
        return [
            {
                "loss": round(found[row], DIGITS),
                "tokens": len(self.texts[row].learned),
                "truncated": self.texts[row].cut,
                "example_tokens": self.texts[row].length,
                **said[row],
            }
            for row in batch
        ]

    def _said(self, batch: Sequence[int]) -> dict[int, Fields]:
        said: dict[int, Fields] = {row: {} for row in batch}
        if self.generating is None:
            return said
        asked = [row for row in batch if row not in self.generating.refused]
        said.update(zip(asked, self.generating.score(asked) if asked else [], strict=True))
        for row in said.keys() - asked:
            said[row] = {"refused": self.generating.refused[row]}
        return said
