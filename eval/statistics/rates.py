"""A figure as results.json keeps it: a value with its n, standard error and 95 % interval."""

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass

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
    size. `ValueError` where there are none.
    """
    error, effect = clustered_stderr(values), design_effect(values, groups)
    n, mean = len(values), sum(values) / len(values)
    reach = critical(n, groups)
    return Rate(mean, n, error * math.sqrt(effect), wilson(mean * n / effect, n / effect, reach))


def rate(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> dict[str, object]:
    """Return `rate_of` as plain JSON values."""
    found = asdict(rate_of(values, groups))
    return {**found, "ci95": list(found["ci95"])}


def accuracy_of(right: Sequence[bool], groups: Sequence[Hashable] | None = None) -> dict[str, object]:
    """Return the share of correct rows as results.json has it: `accuracy`, `n`, `stderr`, `ci95`."""
    found = rate(right, groups)
    return {"accuracy": found.pop("value"), **found}


@dataclass(frozen=True, slots=True)
class Measured:
    """A figure in any unit with its standard error and 95 % limits."""

    value: float
    stderr: float
    ci95: tuple[float, float]


def ratio(
    tops: Sequence[float], bottoms: Sequence[float], groups: Sequence[Hashable] | None = None
) -> Measured:
    """Return Σtops / Σbottoms over rows that may come in groups; `ValueError` where the bottoms sum to
    nothing.

    The error is that of a ratio estimator (Cochran 1977, §6.3), linearised and by group.
    """
    total = sum(bottoms)
    if total <= 0:
        raise ValueError(f"found a sum of {total}, expected more than 0")
    value = sum(tops) / total
    residuals = [top - value * bottom for top, bottom in zip(tops, bottoms, strict=True)]
    error = clustered_stderr(residuals, groups) * len(tops) / total
    reach = critical(len(tops), groups) * error
    return Measured(value, error, (value - reach, value + reach))


def mean_of(values: Sequence[float], groups: Sequence[Hashable] | None = None) -> Measured:
    """Return the mean of values in any unit, with the error and limits of `ratio`."""
    return ratio(values, [1] * len(values), groups)


def average(figures: Sequence[Measured]) -> Measured:
    """Return the unweighted mean of independent figures; `ValueError` where there is none.

    The limits combine the figures' own (Zou, Huang and Zhang 2009, A note on confidence interval estimation
    for a linear function of binomial proportions): they are no point where every share is 0 or 1.
    """
    if not figures:
        raise ValueError("no figures")
    count = len(figures)
    value = math.fsum(one.value for one in figures) / count
    below, above = (math.hypot(*(one.value - one.ci95[side] for one in figures)) / count for side in (0, 1))
    error = math.hypot(*(one.stderr for one in figures)) / count
    return Measured(value, error, (value - below, value + above))
