"""Choosing on one half of the rows and reporting on the other, so that luck in choosing earns nothing."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import ContentError
from core.metrics import Metric
from eval.statistics.rates import Rows, groups_of, hits, rate_of

Split = tuple[list[int], list[int]]


@dataclass(frozen=True, slots=True)
class Score:
    """Accuracy of some rows with its 95 % interval, their number, and their baseline (a share); `value` is
    the metric that is chosen by, with its interval, None for the accuracy itself."""

    accuracy: float
    low: float
    high: float
    n: int
    majority: float
    value: float | None = None
    value_ci95: Sequence[float] | None = None


def split_halves(keys: Sequence[str], seed: int, place: str) -> Split:
    """Return the rows to choose on and those to report, by a hash of what each row's group or question is:
    the same in every run and for every model, rows of one key together. `ContentError` if a half is empty."""
    halves: Split = ([], [])
    for row, key in enumerate(keys):
        halves[hashlib.sha256(f"{seed} {key}".encode()).digest()[0] % 2].append(row)
    if not all(halves):
        raise ContentError(
            f"{place}: {len(keys)} rows: too few to choose on one half and report on the other"
        )
    return halves


def held_out_rows(count: int, size: float, seed: int) -> list[int]:
    """Return the rows (from 0, in order) that a training with this `val_size` and seed did not train on.

    They are those that `train_test_split` of the datasets library holds out, by which both LLaMA-Factory and
    the published script part their rows; a `size` of 1 or more is a number of rows.
    """
    shuffled = np.random.default_rng(seed).permutation(count)
    held: list[int] = shuffled[: math.ceil(size * count) if size < 1 else int(size)].tolist()
    return sorted(held)


def score(rows: Rows) -> Score:
    """Return how some rows were answered; `majority` is what their own commonest answer would score,
    as `eval.compare` judges them, not that of the whole set."""
    found = rate_of(hits(rows), groups_of(rows))
    commonest = max(Counter(row["expected_output"] for row in rows).values())
    return Score(found.value, *found.ci95, found.n, commonest / found.n)


def choose(scores: Mapping[str, float], metric: Metric) -> str:
    """Return the name of the best score by the metric's direction; of equals the first."""
    return min(scores, key=lambda name: metric.rank(scores[name]))
