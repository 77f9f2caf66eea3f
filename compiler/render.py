"""Checked columns become records, one JSON text each, in the output's format."""

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import cast

import orjson

from compiler.rows import Batch
from compiler.spec import Output, Spec, placeholders
from compiler.turns import OPENAI, SHAREGPT, SYSTEM, Turn

Texts = Iterable[object]


class Renderer:
    """Renders batches for one output of a spec."""

    def __init__(self, spec: Spec, output: Output) -> None:
        self.output = output
        self.turns = next((column.name for column in spec.columns if column.kind == "turns"), None)
        self.columns = {column.name for column in spec.columns}
        self.keys = self._keys()

    def render(self, batch: Batch) -> list[bytes]:
        """Return the records of a batch as JSON texts, keys in a fixed order, non-ASCII as it is."""
        values = self._fields(batch)
        dumps, keys = orjson.dumps, self.keys
        return [dumps(dict(zip(keys, row))) for row in zip(*values)]  # noqa: B905  # every field is as long as the batch

    def _keys(self) -> tuple[str, ...]:
        out = self.output
        if out.format == "alpaca":
            optional = ("system",) if "system" in out.templates else ()
            return ("instruction", "input", "output", *optional, *out.keep)
        if out.format == "sharegpt":
            return (out.field, *self._extras(), *out.keep)
        return (*out.keep, out.field)

    def _extras(self) -> tuple[str, ...]:
        return tuple(
            name for name in ("system", "tools") if name in self.columns or name in self.output.templates
        )

    def _fields(self, batch: Batch) -> list[Texts]:
        out = self.output
        kept: list[Texts] = [batch.columns[name] for name in out.keep]
        if out.format == "alpaca":
            return [self._text(batch, key) for key in self.keys[: len(self.keys) - len(kept)]] + kept
        if out.format == "text":
            return [*kept, self._text(batch, "text")]
        talks = self._talks(batch)
        if out.format == "messages":
            return [*kept, [[{"role": OPENAI[t.role], "content": t.text} for t in talk] for talk in talks]]
        extras = [
            batch.columns[name] if name in self.columns else self._text(batch, name)
            for name in self._extras()
        ]
        return [
            [[{"from": SHAREGPT[t.role], "value": t.text} for t in talk] for talk in talks],
            *extras,
            *kept,
        ]

    def _talks(self, batch: Batch) -> Iterator[list[Turn]]:
        """Yield each row's turns: those it has, or those that the templates make."""
        if self.turns and "user" not in self.output.templates:
            yield from cast("list[list[Turn]]", batch.columns[self.turns])
            return
        roles = [
            role
            for role in (SYSTEM, "user", "assistant")
            if role in self.output.templates and not (role == SYSTEM and self.output.format == "sharegpt")
        ]
        for texts in zip(*(self._text(batch, role) for role in roles), strict=False):
            yield [Turn(role, cast("str", text)) for role, text in zip(roles, texts, strict=True)]

    def _text(self, batch: Batch, key: str) -> Texts:
        """Return one template filled in for every row of a batch."""
        pieces = placeholders(self.output.templates.get(key, ""))
        names = [name for _, name in pieces if name is not None]
        literals = [literal for literal, _ in pieces]
        if not names:
            return repeat("".join(literals), len(batch))
        columns = [batch.columns[name] for name in names]
        if pieces == [("", names[0])]:
            return columns[0]
        form = "".join(
            literal.replace("%", "%%") + ("%s" if name is not None else "") for literal, name in pieces
        )
        return map(form.__mod__, zip(*columns, strict=True))
