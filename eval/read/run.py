"""One model's answers to one dataset, row by row: the record that every reader of results makes."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, pairwise
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError, RequestError, show_value

KINDS = ("type", "subtype")
FIGURES = ("accuracy", "n", "majority", "majority_label", "metrics")  # of the whole dataset, not of its half


@dataclass(frozen=True, slots=True)
class ScoredRun:
    """One model's answers to one set, row by row, in the same order for all models of the set.

    `kinds` may part the rows, by `type` or `subtype`; `confidence` is the share (0-1) of the chosen label
    among the labels' probabilities; `facts` say how it was scored (results.json). Of another metric than
    accuracy, `values` are its own (None: missing), and `weights` what each row counts (the tokens that a loss
    is of).
    """

    model: str
    dataset: str
    source: str
    rows: Sequence[str]
    gold: Sequence[str]
    predicted: Sequence[str]
    correct: Sequence[bool]
    groups: Sequence[str] | None = None
    kinds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    confidence: Sequence[float] | None = None
    facts: Mapping[str, object] = field(default_factory=dict)
    values: Sequence[float | None] = ()
    weights: Sequence[float] = ()

    @property
    def trained_on(self) -> Mapping[str, Any]:
        """What results.json says of training examples among the rows; empty where it says nothing."""
        found = self.facts.get("trained_on")
        return found if isinstance(found, Mapping) else {}

    def only(self, keep: Sequence[bool]) -> "ScoredRun":
        """The run with some of its rows."""
        columns = ("rows", "gold", "predicted", "correct", "groups", "confidence", "values", "weights")
        given = {name: getattr(self, name) for name in columns}
        kept: dict[str, Any] = {name: own and list(compress(own, keep)) for name, own in given.items()}
        kept["kinds"] = {name: list(compress(own, keep)) for name, own in self.kinds.items()}
        return replace(self, **kept)


def by_dataset(runs: Iterable[ScoredRun], decide_on: str = "") -> dict[str, dict[str, ScoredRun]]:
    """Return the runs by dataset and model; `RequestError` where none is of the dataset `decide_on`."""
    found: dict[str, dict[str, ScoredRun]] = {}
    for run in runs:
        found.setdefault(run.dataset, {})[run.model] = run
    if decide_on not in ("", *found):
        raise RequestError(f"--decide-on {decide_on}: no such dataset; expected one of {', '.join(found)}")
    return found


def without(run: ScoredRun, rows: Collection[str]) -> ScoredRun:
    """Return the run without some of its rows, and without figures that were of all of them."""
    facts = {name: value for name, value in run.facts.items() if name not in FIGURES}
    return replace(run.only([row not in rows for row in run.rows]), facts=facts)


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
    """Return a field as text (a number as its digits), None where it is absent or null.

    1.0 is the text of 1: a table writes whole numbers as floats once a row of their column is empty.
    """
    value = record.get(name)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
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
    groups = [record.group for record in ordered if record.group is not None]
    if groups and len(groups) < len(ordered):
        without = next(record for record in ordered if record.group is None)
        raise ContentError(f"{without.place}: no group, but {len(groups)} other rows have one")
    return ScoredRun(
        model,
        dataset,
        str(source),
        rows=[record.row for record in ordered],
        gold=[record.gold for record in ordered],
        predicted=[record.predicted for record in ordered],
        correct=[record.correct for record in ordered],
        groups=groups or None,
        kinds={name: [record.kinds.get(name, "") for record in ordered] for name in named},
        confidence=known if len(known) == len(ordered) else None,
        facts=facts,
        values=[record.value for record in ordered],
        weights=[record.weight for record in ordered],
    )
