"""Which of a spec's columns are text that a model reads (asked) and text that it learns (answered)."""

import json
from collections.abc import Sequence
from typing import cast

import orjson

from compiler.kinds import HISTORY, PAIR, PLACEHOLDERS
from compiler.rows import Batch
from compiler.spec import Spec, placeholders
from compiler.turns import Turn

Texts = list[str]
TEXTUAL = ("text", "answer", "extra", "list", "best", "tools", *PAIR)
SMALLEST, LARGEST = -(1 << 63), (1 << 64) - 1  # what orjson writes


class TextColumns:
    """Names and fetches the texts of a spec's first output; labels are no texts."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.turns, kinds = spec.turns, spec.kinds
        answered = spec.outputs[0].columns_of("output", "assistant")
        self.label_is_learned = "label" in answered and bool(spec.labels)
        self.asked = spec.outputs[0].columns_of("instruction", "input", "system", "user", "text")
        self.answered = [name for name in answered if name != "label" or not spec.labels]
        self.may_be_blank = [name for name in self.answered if kinds[name] == "answer"]
        if self.turns:
            self.asked, self.answered, self.may_be_blank = ["asked"], ["answered"], ["answered"]
            self.asked += [name for name, kind in kinds.items() if name == "system" or kind == "tools"]
        self.pair = spec.named(*PAIR)
        if self.pair:
            self.answered, self.may_be_blank = self.pair, []
        self.asked += [name for name, kind in kinds.items() if kind in (*PLACEHOLDERS, HISTORY)]

    def of(self, batch: Batch) -> dict[str, Texts]:
        """Return the texts of a batch by name: what is asked, then what is to be learned."""
        own: dict[str, Texts] = {}
        if self.turns:
            talks = cast("list[list[Turn]]", batch.columns[self.turns])
            own["asked"] = ["\n".join(t.text for t in talk[: None if self.pair else -1]) for talk in talks]
            own |= {} if self.pair else {"answered": [talk[-1].text for talk in talks]}
        columns = [name for name in (*self.asked, *self.answered) if name not in own]
        texts = own | {name: as_texts(self.spec, name, batch.columns[name]) for name in columns}
        return {name: texts[name] for name in (*self.asked, *self.answered)}


def stand_ins(spec: Spec) -> dict[str, str]:
    """Return by column the one that asks alone where it is empty: the input of alpaca for its instruction.

    LLaMA-Factory joins what is filled of the two. {} where a template has other words than the column's.
    """
    asked = [[o.templates.get(key, "") for key in ("instruction", "input")] for o in spec.outputs]
    bare = {tuple(_bare(template) for template in templates) for templates in asked}
    name, other = next(iter(bare)) if len(bare) == 1 else ("", "")
    return {name: other} if name and other else {}


def _bare(template: str) -> str:
    pieces = placeholders(template)
    return pieces[0][1] or "" if len(pieces) == 1 and not pieces[0][0] else ""


def as_texts(spec: Spec, name: str, values: list[object]) -> Texts:
    """Return a column as texts, whatever is in it."""
    kind = spec.kinds[name]
    checked = kind in TEXTUAL or (kind == "label" and spec.labels)
    return cast("Texts", values) if checked else list(map(written, values))


def written(value: object) -> str:
    """Return a text as it is, and any other value as JSON has it: `true`, `1.5`, `null`, `["x"]`."""
    if isinstance(value, str):
        return value
    text = orjson.dumps(value).decode()
    return str(orjson.loads(text)) if text[0] == '"' else text  # a date


def writable(value: object) -> bool:
    """Whether JSON can hold a value: no bytes, no NaN, not nested too deep, no rounded number."""
    try:
        text = json.dumps(value, allow_nan=False, default=lambda other: orjson.dumps(other).decode())
        json.loads(text, parse_float=_unrounded)
        orjson.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def _unrounded(number: str) -> None:
    """Refuse a number that may have lost digits: orjson reads whole ones above 64 bits as fractions."""
    if abs(float(number)) > LARGEST:
        raise ValueError(number)


def numbers_in(values: Sequence[object], before: str | None) -> list[object]:
    """Return text cells as whole numbers where all are written as such, and none is too large for JSON.

    `before` is what the column holds in the rows before: text stays, beside numbers each cell counts alone.
    """
    try:
        numbers = [int(cast("str", value)) for value in values]
        small = min(numbers) >= SMALLEST and max(numbers) <= LARGEST
        if before != "text" and small and list(map(str, numbers)) == list(values):
            return cast("list[object]", numbers)
    except ValueError:
        pass
    alone = before == "a number" and len(values) > 1
    return [number for value in values for number in numbers_in([value], None)] if alone else list(values)
