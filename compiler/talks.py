"""Conversations of a spec's rows, read as its outputs need them; what these would leave out is said."""

from collections.abc import Mapping
from typing import Any

from compiler.pairs import pair_of
from compiler.rows import Batch
from compiler.spec import Spec
from compiler.turns import SYSTEM, Clean, Turn, cleaned, keeps, read_turns
from core.calls import WrongValueError
from core.errors import show_value


class Talks:
    """Reads the turns of one file's rows; `shortened` counts those of which one exchange alone is kept."""

    def __init__(self, spec: Spec, clean: Clean) -> None:
        self.clean = clean if spec.clean else None
        self.turns = next((column.name for column in spec.columns if column.kind == "turns"), "")
        self.beside = any(column.calls == "text" for column in spec.columns)
        self.asks = bool(pair_of(spec))
        self.tools = keeps(spec.outputs, "call", "observation")
        given = spec.in_mix and any("system" in output.templates for output in spec.outputs)
        self.anything = given or "system" in spec.ignore  # as a system text: none is kept, and that was said
        self.systems = self.anything or keeps(spec.outputs, SYSTEM)
        self.first = any(output.format == "alpaca" and output.turns == "first" for output in spec.outputs)
        self.shortened = 0

    def read(self, answered: bool, value: list[dict[str, object]]) -> list[Turn]:
        """Return the turns of one row; where it is `answered`, the last of them is an answer, and no prompt.

        `WrongValueError` for what LLaMA-Factory would not train on, or no output could keep.
        """
        value = value[:-1] if answered else value
        talk = read_turns(value, self.tools, self.beside, asks=self.asks)
        if talk[0].role == SYSTEM and talk[0].text.strip() and not self.systems:
            raise WrongValueError(
                "turn 1: found a system text, which this output would leave out; write sharegpt or messages, "
                "or leave it out by `ignore: [system]`"
            )
        self.shortened += self.first and len(talk) - (talk[0].role == SYSTEM) > 2
        return cleaned(talk, self.clean) if self.clean else talk

    def earlier(self, value: list[list[object]] | None) -> list[list[object]]:
        """Return the pairs of a question and its answer that stand before the question of one row."""
        pairs = value or []
        return [self.clean(pair) for pair in pairs] if self.clean else pairs

    def doubtful(self, batch: Batch) -> bool:
        """Whether rows of a batch may have two system texts: in a column of its own and as a turn."""
        systems, talks = batch.columns.get("system", ()), batch.columns.get(self.turns, ())
        return not self.anything and any(systems) and any(talk[0].role == SYSTEM for talk in talks)  # type: ignore[index]  # turns by now

    def one_system(self, row: Mapping[str, Any]) -> dict[str, object]:
        """Change nothing in a row; `WrongValueError` where it has two system texts that differ."""
        first = row[self.turns][0]
        if first.role == SYSTEM and str(row["system"]).strip() not in ("", first.text.strip()):
            both = f"{show_value(first.text)} as a turn and {show_value(row['system'])} beside the turns"
            raise WrongValueError(f"found two system texts, {both}; a record holds one")
        return {}

    def notes(self) -> list[str]:
        """Return, for people, of how many conversations all but the first exchange is left out."""
        if not self.shortened:
            return []
        return [
            f"{self.shortened} conversations have more than the first exchange, which alone is written "
            "(`turns: history` keeps the others)"
        ]
