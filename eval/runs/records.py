"""Rows of scored answers, whatever wrote them, and how they become a `ScoredRun`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from core.errors import ContentError, show_value
from eval.runs.judgement import ScoredRun

KINDS = ("type", "subtype")


@dataclass(frozen=True, slots=True)
class ScoredExample:
    """One scored row: `row` is what it is paired by, `place` where it stands (file:line)."""

    row: str
    gold: str
    predicted: str
    correct: bool
    place: str
    group: str | None = None
    kinds: Mapping[str, str] = field(default_factory=dict)
    confidence: float | None = None
    value: float | None = None
    weight: float = 1.0


def text_field(record: Mapping[str, object], name: str, where: str) -> str:
    """Return a field that must hold a text; `ContentError` with its place otherwise."""
    value = record.get(name)
    if not isinstance(value, str):
        raise ContentError(f"{where}: {name}: found {show_value(value)}, expected a text")
    return value


def optional_text(record: Mapping[str, object], name: str) -> str | None:
    """Return a field as text (a number as its digits), None where it is absent or null."""
    value = record.get(name)
    return None if value is None else str(value)


def kinds_of(record: Mapping[str, object], gold: str) -> dict[str, str]:
    """Return the fields that part the rows; rows with a subtype have their gold answer as type."""
    kinds = {name: value for name in KINDS if (value := optional_text(record, name)) is not None}
    return {"type": gold, **kinds} if "subtype" in kinds else kinds


def confidence_of(logs: Sequence[float]) -> float | None:
    """Return the share (0-1) of the likeliest label, given every label's log-probability; None where not even
    that one has any probability."""
    top = max(logs)
    return 1 / math.fsum(math.exp(log - top) for log in logs) if math.isfinite(top) else None


def assemble(
    model: str, dataset: str, source: Path, records: Iterable[ScoredExample], facts: Mapping[str, object]
) -> ScoredRun:
    """Return the run of the records in the order of their row ids; `ContentError` for doubles or gaps."""
    ordered = sorted(records, key=lambda record: (len(record.row), record.row))
    if not ordered:
        raise ContentError(f"{source}: no rows in it; score {model} on {dataset} again")
    try:  # halves of characters (lone surrogates): JSON can hold them, and no file of text can
        "".join([model, dataset, *(text for one in ordered for text in (one.gold, one.predicted))]).encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise ContentError(f"{source}: an answer or a name holds half a character ({half!r})") from error
    for one, other in pairwise(ordered):
        if one.row == other.row:
            raise ContentError(f"{other.place}: row {other.row} stands in {one.place} already")
    named = sorted({name for record in ordered for name in record.kinds})
    known = [record.confidence for record in ordered if record.confidence is not None]
    return ScoredRun(
        model,
        dataset,
        str(source),
        rows=[record.row for record in ordered],
        gold=[record.gold for record in ordered],
        predicted=[record.predicted for record in ordered],
        correct=[record.correct for record in ordered],
        groups=_groups(ordered),
        kinds={name: [record.kinds.get(name, "") for record in ordered] for name in named},
        confidence=known if len(known) == len(ordered) else None,
        facts=facts,
        values=[record.value for record in ordered],
        weights=[record.weight for record in ordered],
    )


def _groups(records: list[ScoredExample]) -> list[str] | None:
    groups = [record.group for record in records if record.group is not None]
    if groups and len(groups) < len(records):
        without = next(record for record in records if record.group is None)
        raise ContentError(f"{without.place}: no group, but {len(groups)} other rows have one")
    return groups or None
