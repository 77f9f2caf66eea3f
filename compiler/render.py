"""Checked columns become records, one JSON text each, in the output's format."""

from collections.abc import Iterable, Iterator
from itertools import repeat
from typing import cast

import orjson

from compiler.rows import Batch
from compiler.spec import Output, Spec, placeholders
from compiler.turns import ASSISTANT, OPENAI, SHAREGPT, SYSTEM, USER, Turn

Texts = Iterable[object]


class Renderer:
    """Renders batches for one output of a spec.

    A record is one JSON text made by a bytes template of its keys and constant fields, into which
    the JSON of the other values goes: half the time of a dict for every row.
    """

    def __init__(self, spec: Spec, output: Output) -> None:
        self.output = output
        self.turns = next((column.name for column in spec.columns if column.kind == "turns"), None)
        self.columns = {column.name for column in spec.columns}

    def render(self, batch: Batch) -> list[bytes]:
        """Return the records of a batch as JSON texts, keys in a fixed order, non-ASCII as it is."""
        parts = []
        values = []
        for key, value in self._fields(batch):
            if isinstance(value, str):
                parts.append(orjson.dumps(key) + b":" + orjson.dumps(value).replace(b"%", b"%%"))
            else:
                parts.append(orjson.dumps(key).replace(b"%", b"%%") + b":%b")
                values.append(map(orjson.dumps, value))
        form = b"{" + b",".join(parts) + b"}"
        return list(map(form.__mod__, zip(*values, strict=True)))

    def _fields(self, batch: Batch) -> list[tuple[str, Texts | str]]:
        """Return the record's fields in order: a text for all rows, or a value for each."""
        out = self.output
        kept: list[tuple[str, Texts | str]] = [(name, batch.columns[name]) for name in out.keep]
        if out.format == "alpaca" and self.turns:
            return [*self._alpaca(batch), *kept]
        if out.format == "alpaca":
            names = ["instruction", "input", "output", *(["system"] if "system" in out.templates else [])]
            history: list[tuple[str, Texts | str]] = []
            if out.turns == "history":  # other parts of a mixture have one
                history = [("history", repeat([], len(batch)))]
            return [*((name, self._text(batch, name)) for name in names), *history, *kept]
        if out.format == "text" and out.roles:
            return [*kept, (out.field, map(self._told, self._talks(batch)))]
        if out.format == "text":
            return [*kept, (out.field, self._text(batch, "text"))]
        if out.format == "messages":
            return [*kept, (out.field, self._messages(batch)), *self._extras(batch, ("tools",))]
        talks = ([{"from": SHAREGPT[t.role], "value": t.text} for t in talk] for talk in self._talks(batch))
        return [(out.field, talks), *self._extras(batch, ("system", "tools")), *kept]

    def _alpaca(self, batch: Batch) -> list[tuple[str, Texts | str]]:
        """Return turns as alpaca: the first exchange, or the last with those before it as history."""
        talks = [[turn.text for turn in talk if turn.role != SYSTEM] for talk in self._talks(batch)]
        if self.output.turns == "first":
            return [("instruction", [t[0] for t in talks]), ("input", ""), ("output", [t[1] for t in talks])]
        history = [[talk[at : at + 2] for at in range(0, len(talk) - 2, 2)] for talk in talks]
        asked, answered = [talk[-2] for talk in talks], [talk[-1] for talk in talks]
        return [("instruction", asked), ("input", ""), ("output", answered), ("history", history)]

    def _told(self, talk: list[Turn]) -> str:
        """Return turns as one text, each as its speaker's template has it."""
        roles = self.output.roles
        return "\n\n".join(roles[t.role].replace("{}", t.text) for t in talk if t.role in roles).strip()

    def _messages(self, batch: Batch) -> Iterator[list[dict[str, str]]]:
        """Yield each row's messages; a system text of its own becomes the first of them."""
        systems = repeat("", len(batch))
        if self.turns and "system" in self.columns:
            systems = cast("repeat[str]", batch.columns["system"])
        for system, talk in zip(systems, self._talks(batch), strict=True):
            first = [Turn(SYSTEM, system)] if system and talk[0].role != SYSTEM else []
            yield [{"role": OPENAI[turn.role], "content": turn.text} for turn in [*first, *talk]]

    def _extras(self, batch: Batch, names: tuple[str, ...]) -> Iterator[tuple[str, Texts | str]]:
        for name in names:
            if name in self.output.templates:
                yield name, self._text(batch, name)
            elif name in self.columns:
                yield name, batch.columns[name]

    def _talks(self, batch: Batch) -> Iterator[list[Turn]]:
        """Yield each row's turns: those it has, or those that the templates make."""
        if self.turns and "user" not in self.output.templates:
            yield from cast("list[list[Turn]]", batch.columns[self.turns])
            return
        roles = [role for role in (SYSTEM, USER, ASSISTANT) if role in self.output.templates]
        if self.output.format == "sharegpt" and SYSTEM in roles:
            roles.remove(SYSTEM)  # it has a field of its own
        texts = [self._text(batch, role) for role in roles]
        columns = [repeat(text, len(batch)) if isinstance(text, str) else text for text in texts]
        for row in zip(*columns, strict=True):
            yield [Turn(role, cast("str", text)) for role, text in zip(roles, row, strict=True)]

    def _text(self, batch: Batch, key: str) -> Texts | str:
        """Return one template filled in for every row of a batch, or the text that it is for all."""
        pieces = placeholders(self.output.templates.get(key, ""))
        names = [name for _, name in pieces if name is not None]
        if not names:
            return "".join(literal for literal, _ in pieces)
        columns = [batch.columns[name] for name in names]
        if pieces == [("", names[0])]:
            return columns[0]
        form = "".join(text.replace("%", "%%") + ("%s" if name is not None else "") for text, name in pieces)
        return map(form.__mod__, zip(*columns, strict=True))
