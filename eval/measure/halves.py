"""Choosing on one half of the rows and reporting on the other, so that luck in choosing earns nothing."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.errors import ContentError
from eval.measure.labels import summary

Rows = Sequence[Mapping[str, object]]  # predictions, in the order of the data
Split = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of some rows with its 95 % interval, their number, and the commonest answer's share."""

    accuracy: float
    low: float
    high: float
    n: int
    majority: float


def split_halves(keys: Sequence[str], seed: int, place: str) -> Split:
    """Return the rows to choose on and those to report, by a hash of what each row's group or question is.

    The same in every run and for every model; rows of one key stay together. `ContentError` if a half is
    empty.
    """
    halves: Split = ([], [])
    for row, key in enumerate(keys):
        halves[hashlib.sha256(f"{seed} {key}".encode()).digest()[0] % 2].append(row)
    if not all(halves):
        raise ContentError(
            f"{place}: {len(keys)} rows: too few to choose on one half and report on the other"
        )
    return halves


def score(rows: Rows, half: Sequence[int]) -> Score:
    """Return how some of the rows were answered."""
    found: dict[str, Any] = summary([rows[number] for number in half])
    low, high = found["ci95"]
    return Score(found["accuracy"], low, high, found["n"], found["majority"])


def choose(scores: Mapping[str, float]) -> str:
    """Return the name of the best score; of equals the first."""
    return max(scores, key=scores.__getitem__)
