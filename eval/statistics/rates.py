"""A figure as results.json keeps it: a value with its n, standard error and 95 % interval."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from eval.statistics.shares import clustered_stderr, critical, design_effect, wilson

Rows = Sequence[Mapping[str, object]]


def groups_of(rows: Rows) -> list[str] | None:
    """Return the cluster of each row (in older files its `group`), None unless every row has one."""
    found = [group_of(row) for row in rows]
    return [group for group in found if group is not None] if None not in found else None


def group_of(row: Mapping[str, object]) -> str | None:
    """Return the cluster that a row of predictions.jsonl or of another tool's log names, else None."""
    named = row.get("cluster", row.get("group"))
    return None if named is None else str(named)


def hits(rows: Rows) -> list[bool]:
    """Return of each row whether it was predicted what was expected."""
    return [row["expected_output"] == row["predicted_output"] for row in rows]


@dataclass(frozen=True, slots=True)
class Rate:
    """A mean of `n` values between 0 and 1 (of flags: a share), with standard error and 95 % limits."""

    value: float
    n: int
    stderr: float
    ci95: tuple[float, float]


def rate_of(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> Rate:
    """Return the mean of values between 0 and 1 (flags: their share) with Wilson's interval.

    Rows that share a group are not independent: error and interval are then by group, with t(G - 1) for z.
    For values other than flags the interval is on the safe side: no mean varies more than a share of its
    size.
    `ValueError` where there are none.
    """
    error, effect = clustered_stderr(values, range(len(values))), design_effect(values, groups)
    n, mean = len(values), sum(values) / len(values)
    reach = critical(n, groups)
    return Rate(mean, n, error * math.sqrt(effect), wilson(mean * n / effect, n / effect, reach))


def rate(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> dict[str, object]:
    """Return `rate_of` as plain JSON values."""
    found = rate_of(values, groups)
    return {"value": found.value, "n": found.n, "stderr": found.stderr, "ci95": list(found.ci95)}
