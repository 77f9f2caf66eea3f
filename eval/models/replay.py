"""The backend of --rescore: it gives back what predictions.jsonl of an earlier run holds."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from tuneyard.core.documents import is_number
from tuneyard.core.errors import ContentError, RequestError, unexpected
from tuneyard.core.language.message import _, relative
from tuneyard.core.llamafactory.prompt import Encode, Messages
from tuneyard.core.llamafactory.prompt.supervision import SupervisedText
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.eval.figures.labels import label_logs
from tuneyard.eval.models import Backend
from tuneyard.eval.models.batch_plan import (
    DIGITS,
    Batches,
    BatchPlan,
    Fields,
    Images,
    Prompts,
    Refused,
    TooLong,
)
from tuneyard.eval.runs.results import PREDICTIONS, RESULTS, read_lines

TEXT = ("reference", "loss", "tokens", "truncated", "reference_tokens")
"""Fields of a text that was measured; `ANSWER` those of an answer to it."""
ANSWER = ("prediction", "prediction_tokens")
KINDS = {
    "reference": (str, _("a text")),
    "prediction": (str, _("a text")),
    "truncated": (bool, _("true or false")),
}
"""What these fields are. The others are `NUMBER`."""
NUMBER = float, _("a number")


@dataclass(eq=False)
class Replay(Backend):
    """The outputs of the finished run in the folder `run`, or of one model on one dataset in it (`for_rows`).

    `lines` are those of `count` rows, by row. Every prompt fits: it was answered before.
    """

    run: Path
    lines: Mapping[int, Prediction] = field(default_factory=dict)
    count: int = 0

    def for_rows(self, name: str, count: int) -> "Replay":
        """The outputs in a folder MODEL/DATASET of the run. `ContentError` for a row beyond the `count`."""
        outputs = replace(self, run=self.run / name, count=count)
        outputs.lines = read_lines(outputs.run / PREDICTIONS)
        for row in outputs.lines:
            if not 0 <= row < count:
                raise ContentError(
                    _(
                        "{place}, expected one of the {number} examples",
                        place=outputs.place(row),
                        number=count,
                    )
                )
        return outputs

    def place(self, row: int) -> str:
        """Where a row's line is, for messages."""
        return f"{relative(self.run / PREDICTIONS)}: row {row}"

    def seeing(self, template: str, think: bool, pixels: Mapping[str, int]) -> "Replay":  # noqa: ARG002
        """The same outputs: the images were seen before."""
        return self

    def choosing(
        self,
        prompts: Prompts,
        spellings: Mapping[str, Sequence[str]],
        images: Images = None,  # noqa: ARG002
    ) -> BatchPlan:
        """The kept log-probabilities of the labels. `RequestError` if a label has none."""
        return BatchPlan([list(prompts)], {}, lambda batch: [self._choice(row, spellings) for row in batch])

    def losses(
        self,
        texts: Callable[[], Mapping[int, SupervisedText]],  # noqa: ARG002
        generating: BatchPlan | None,  # noqa: ARG002
    ) -> BatchPlan:
        """The kept lines as they are: their lengths need a tokenizer."""
        return BatchPlan([list(range(self.count))], {}, lambda batch: [self._measured(row) for row in batch])

    def batches(self, lengths: Mapping[int, int]) -> Batches:
        """All rows at once."""
        return [list(lengths)]

    def chat(
        self,
        talks: Mapping[int, Messages],
        encode: Encode,  # noqa: ARG002
        longest: int,  # noqa: ARG002
    ) -> list[str | TooLong | Refused]:
        """The kept answer to each conversation; of a transcript, the turn that follows."""
        return [self._answer(row, len(talk)) for row, talk in talks.items()]

    def needs_model(self) -> RequestError:
        """The error for what kept outputs do not have."""
        return RequestError(_("--rescore has no model: this figure needs one, score without --rescore"))

    def _line(self, row: int) -> tuple[Prediction, str]:
        """A row's line, and its place for messages."""
        place = self.place(row)
        if row not in self.lines:
            raise ContentError(
                _(
                    "{place} is missing: delete {file}, finish the run with --resume, then --rescore",
                    place=place,
                    file=self.run / RESULTS,
                )
            )
        return self.lines[row], place

    def _measured(self, row: int) -> Fields:
        """A row's line but for its cluster: --cluster may be another one."""
        line, place = self._line(row)
        names = [*TEXT, *(name for name in line if name.endswith("_tokens"))]
        if "prediction" in line:
            names += ANSWER
        for name in names:
            value = line.get(name)
            kind, expected = KINDS.get(name, NUMBER)
            if not (is_number(value) if kind is float else isinstance(value, kind)):
                raise unexpected(place, name, value, expected)
        return cast(Fields, {name: value for name, value in line.items() if name != "cluster"})

    def _answer(self, row: int, turn: int) -> str | TooLong | Refused:
        """The answer in a row's line. Of a conversation, the one after so many messages."""
        line, place = self._line(row)
        answer, refusal = line.get("model_output"), line.get("too_long")
        if "transcript" in line:
            turns = line["transcript"]
            if not isinstance(turns, list) or not all(isinstance(each, dict) for each in turns):
                raise unexpected(place, "transcript", turns, _("a list of messages"))
            if turn < len(turns):
                answer = turns[turn].get("content")
            else:
                refusal = _("cut short")
        if refusal is not None:
            return TooLong(refusal)
        if "refused" in line:
            return Refused(str(line["refused"]))
        if not isinstance(answer, str):
            raise unexpected(place, "model_output", answer, _("a text"))
        return answer

    def _choice(self, row: int, labels: Collection[str]) -> Fields:
        """A row's fields, reduced to the labels of this run."""
        line, place = self._line(row)
        if "too_long" in line:
            return {"too_long": line["too_long"]}
        if "refused" in line:
            return {"refused": line["refused"]}
        logs = label_logs({"place": place, "label_mass": None, **line})
        missing = [label for label in labels if label not in logs]
        if missing:
            raise RequestError(
                _(
                    "--rescore: {missing}: the kept log-probabilities are of {names}; score without "
                    "--rescore for other labels",
                    missing=", ".join(missing),
                    names=", ".join(logs),
                )
            )
        choices = {label: logs[label] for label in labels}
        mass = line["label_mass"]
        if len(choices) < len(logs):
            mass = round(sum(map(math.exp, choices.values())), DIGITS)
        return {"model_output": str(self._answer(row, 0)), "choices": choices, "label_mass": mass}
