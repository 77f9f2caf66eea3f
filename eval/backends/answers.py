"""How likely given answers are to a model, one or several to a row, without generating."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.supervision import SupervisedText
from eval.backends.likelihood import losses
from eval.backends.score import plan_batches
from eval.backends.scorers import DIGITS, Fields


class AnswerScorer:
    """Reads the answers of each row, named by `sides`; a row that the context cannot hold is refused."""

    def __init__(
        self, model: Any, budget: int, sides: Sequence[str], texts: Mapping[int, Sequence[SupervisedText]]
    ) -> None:
        self.model, self.budget, self.sides, self.texts = model, budget, sides, texts
        longest = {row: max(one.length for one in answers) for row, answers in texts.items()}
        self.refused = {
            row: f"{length} tokens exceed the context of {model.context}"
            for row, length in longest.items()
            if length > model.context
        }
        fit = {row: length for row, length in longest.items() if row not in self.refused}
        self.batches = plan_batches(fit, max(1, budget // len(sides)))

    def score(self, batch: Sequence[int]) -> list[Fields]:
        """Return log p in nats (`SIDE_logp`), summed over `SIDE_tokens` tokens, of every answer of a row."""
        count = len(self.sides)
        every = {count * row + side: self.texts[row][side] for row in batch for side in range(count)}
        found = losses(self.model, every, self.budget)
        return [
            {
                key: value
                for side, name in enumerate(self.sides)
                for key, value in (
                    (f"{name}_logp", -round(found[count * row + side], DIGITS)),
                    (f"{name}_tokens", len(self.texts[row][side].learned)),
                )
            }
            for row in batch
        ]
