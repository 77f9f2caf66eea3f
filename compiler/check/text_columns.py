"""The text columns of a spec: those that a model reads (asked) and those that it learns (answered)."""

from typing import cast

import orjson

from tuneyard.compiler.kinds import ANSWERED, ASKED, kind_of
from tuneyard.compiler.kinds.turns import Turn
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.spec.model import TOOLS, Spec

Texts = list[str]


class TextColumns:
    """Names and fetches the texts of a spec's first output; labels are no texts."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.turns, kinds = spec.turns, spec.kinds
        answered = spec.outputs[0].columns_of("output", "assistant")
        self.label_is_learned = "label" in answered and bool(spec.labels)
        self.asked = spec.outputs[0].columns_of("instruction", "input", "system", "user", "text")
        self.answered = [name for name in answered if name != "label" or not spec.labels]
        self.may_be_blank = [name for name in self.answered if kind_of(kinds[name]).may_be_blank]
        if self.turns:
            self.asked, self.answered, self.may_be_blank = ["asked"], ["answered"], ["answered"]
        beside = [name for name in kinds if name in ("system", TOOLS) and name not in self.asked]
        self.asked += [name for name in beside if self.turns or name in spec.written_by(spec.outputs[0])]
        compared = {name: kind_of(kind).compared for name, kind in kinds.items()}
        self.pair = [name for name, part in compared.items() if part == ANSWERED]
        if self.pair:
            self.answered, self.may_be_blank = self.pair, []
        self.asked += [name for name, part in compared.items() if part == ASKED]

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
    bare = {f"{{{name}}}": name for name in spec.kinds}
    keys = ("instruction", "input")
    asked = {tuple(bare.get(o.templates.get(key, ""), "") for key in keys) for o in spec.outputs}
    name, other = asked.pop() if len(asked) == 1 else ("", "")
    return {name: other} if name and other else {}


def as_texts(spec: Spec, name: str, values: list[object]) -> Texts:
    """Return a column as texts, whatever is in it."""
    kind = kind_of(spec.kinds[name])
    if kind.is_text or (kind.is_label and spec.labels):
        return cast("Texts", values)
    return list(map(written, values))


def written(value: object) -> str:
    """Return a text as it is, and any other value as JSON has it: `true`, `1.5`, `null`, `["x"]`."""
    if isinstance(value, str):
        return value
    text = orjson.dumps(value).decode()
    return str(orjson.loads(text)) if text[0] == '"' else text  # a date
