"""The cause of a difference that begins in an earlier turn, with the setting of a training that has none."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tuneyard.core.language.message import _, listed
from tuneyard.core.llamafactory.prompt import (
    Encode,
    Messages,
    Tokenizer,
    TrainedHistory,
    llamafactory_encoder,
)
from tuneyard.eval.data.prompts import first_other_turn
from tuneyard.eval.models.batch_plan import Ids
from tuneyard.eval.prove.diagnosis import Cause
from tuneyard.eval.prove.proof import Decode

NAME = _("earlier turns")


@dataclass(frozen=True, slots=True)
class PromptWays:
    """The ways of making prompts, the training's first, by name.

    `template` and `history` are the training's, None if they are not known.
    """

    encoders: Mapping[str, Encode]
    tokenizer: Tokenizer
    template: str | None
    history: TrainedHistory | None

    @property
    def trained_way(self) -> str:
        """The way that the others are compared with."""
        return next(iter(self.encoders))

    def cause(self, way: str, talks: Sequence[Messages], rows: Sequence[int], decode: Decode) -> Cause | None:
        """Name the first turn that differs and what makes it equal. None if it is the first turn.

        `rows` are those of the `talks` whose prompts differ.
        """
        if self.history is None:
            return None
        row = rows[0]
        difference = first_other_turn(talks[row], self.encoders[self.trained_way], self.encoders[way])
        if difference.turn == 1:
            return None
        fix = _("No setting of LLaMA-Factory makes both equal.")
        for setting, encode in self._alternatives():
            if all(encode(talks[each]) == self.encoders[way](talks[each]) for each in rows):
                fix = _("Both are equal after a training with {setting}.", setting=setting)
                break
        trained, prompted = _texts(difference.trained, difference.prompted, decode)
        sentence = _(
            "Turn {turn} of row {row} is trained after {trained}, here after {prompted}. {fix}",
            turn=difference.turn,
            row=row,
            trained=trained,
            prompted=prompted,
            fix=fix,
        )
        return Cause(NAME, sentence)

    def _alternatives(self) -> Iterator[tuple[str, Encode]]:
        """Encoders of trainings with other settings."""
        if self.template is None or self.history is None or self.history.stage != "sft":
            return
        masked = self.history._replace(mask_history=True)
        yield "mask_history: true", llamafactory_encoder(self.tokenizer, self.template, history=masked)
        preserved = masked._replace(preserve_thinking=True)
        encode = llamafactory_encoder(self.tokenizer, self.template, history=preserved)
        yield listed(["mask_history: true", "preserve_thinking: true"]), encode


def _texts(trained: Ids, prompted: Ids, decode: Decode) -> tuple[str, str]:
    return repr(decode(trained)), repr(decode(prompted))
