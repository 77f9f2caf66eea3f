"""What a registry entry means to LLaMA-Factory 0.9.5 (data/parser.py), and what it would take in silence.

Naming `columns` (or `tags`) makes every one of them that is not named None, and a key that it does
not know is passed over: both train on less than was written, without a word.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

from compiler.kinds import PAIR
from compiler.registry import TAGS
from core.errors import Problem, nearest, show_value
from core.prompt import ALPACA

SHAREGPT = {"messages": "conversations"}
EXTRAS = ("history", "system", "tools", "images", "videos", "audios", "chosen", "rejected", "kto_tag")
NOT_NEEDED = ("system_tag", "observation_tag", "function_tag")  # a record with such a turn is E406
FORMATS = ("alpaca", "sharegpt")
OPENAI = "LLaMA-Factory's openai adds words of its own to each system text: use sharegpt with tags"
KEYS = {
    "file_name", "formatting", "columns", "tags", "ranking", "subset", "split", "folder", "num_samples",
    "hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Meaning:
    """The format, the column of each part (only those that are set) and the tags that LLaMA-Factory takes."""

    format: str
    columns: Mapping[str, str]
    tags: Mapping[str, str]
    ranking: bool = False

    @property
    def text_only(self) -> bool:
        """Whether there is nothing to answer with: a set for pretraining, or a response left out."""
        return self.format == "alpaca" and "response" not in self.columns and not self.ranking

    @property
    def stage(self) -> str:
        """The stage that its rows are for, as LLaMA-Factory's loader calls it (dpo reads what rm reads)."""
        return "rm" if self.ranking else "kto" if "kto_tag" in self.columns else "sft"


def meaning_of(entry: Mapping[str, object]) -> Meaning:
    """Return what LLaMA-Factory makes of an entry, right or wrong."""
    columns = _texts(entry["columns"]) if "columns" in entry else {**ALPACA, **SHAREGPT}
    tags = _texts(entry["tags"]) if "tags" in entry else dict(TAGS)
    return Meaning(str(entry.get("formatting", "alpaca")), columns, tags, entry.get("ranking") is True)


def entry_problems(place: str, entry: Mapping[str, object], meaning: Meaning) -> Iterator[Problem]:
    """Yield what is wrong with an entry by itself: unknown keys, parts that are left out."""
    yield from _unknown(place, entry, KEYS, "")
    yield from _unknown(place, entry.get("columns"), {*ALPACA, *SHAREGPT, *EXTRAS}, "columns.")
    yield from _unknown(place, entry.get("tags"), set(TAGS), "tags.")
    if meaning.format not in FORMATS:
        message = f"found {show_value(meaning.format)}, expected one of {', '.join(FORMATS)}"
        hint = OPENAI if meaning.format == "openai" else nearest(meaning.format, FORMATS)
        yield Problem("E401", place, message, "formatting", hint)
        return
    alpaca = meaning.format == "alpaca"
    answers = PAIR if meaning.ranking else ("response",) if alpaca else ()
    due = dict.fromkeys(("prompt" if alpaca else "messages", *answers), "its column")
    tags = {} if alpaca else {tag: repr(text) for tag, text in TAGS.items() if tag not in NOT_NEEDED}
    for field, known, needed, effect in (
        ("columns", meaning.columns, due, "part that is not named empty"),
        ("tags", meaning.tags, tags, "tag that is not named None"),
    ):
        for name in (name for name in needed if name not in known):
            message = f"{name!r} is not named: naming `{field}` makes every {effect}"
            yield Problem("E402", place, message, field, f"add {name!r}: {needed[name]}")


def column_problems(place: str, meaning: Meaning, found: set[str]) -> Iterator[Problem]:
    """Yield the columns that an entry names and no record has; `found` are the keys of all records."""
    wanted = set(ALPACA) | {"history"} if meaning.format == "alpaca" else {"messages"}
    for part, column in meaning.columns.items():
        if part in wanted | {"system", "tools"} and column not in found:
            there = ", ".join(map(show_value, sorted(found)))
            message = f"no record has {show_value(column)} (found: {there})"
            yield Problem("E403", place, message, f"columns.{part}", nearest(column, found))


def _unknown(place: str, value: object, known: set[str], where: str) -> Iterator[Problem]:
    if value is not None and not isinstance(value, dict):
        yield Problem("E401", place, f"found {show_value(value)}, expected an object", where.rstrip("."))
        return
    for key in cast("dict[str, object]", value or {}):
        if key not in known:
            message = "LLaMA-Factory does not know this key and passes over it"
            yield Problem("E401", place, message, f"{where}{key}", nearest(key, known))


def _texts(value: object) -> dict[str, str]:
    items = value.items() if isinstance(value, dict) else ()
    return {key: text for key, text in items if isinstance(text, str)}
