"""A figure as results.json keeps it: a value with its n, standard error and 95 % interval."""

from collections.abc import Mapping, Sequence

from eval.measure.statistics import clustered_stderr, wilson

Rows = Sequence[Mapping[str, object]]


def groups_of(rows: Rows) -> list[str] | None:
    """Return the group of each row, None unless every row has one."""
    return [str(row["group"]) for row in rows] if all("group" in row for row in rows) else None


def rate(values: Sequence[float], groups: Sequence[str] | None = None) -> dict[str, object]:
    """Return the mean of values between 0 and 1 (flags: their share) with Wilson's interval.

    Rows that share a group are not independent: error and interval are then by group. For values
    other than flags the interval is on the safe side: no mean varies more than a share of its size.
    `ValueError` where there are none.
    """
    mean = sum(values) / len(values) if values else 0.0
    plain = error = clustered_stderr(values, range(len(values)))
    if groups is not None:
        error = clustered_stderr(values, groups)
    effect = max(1.0, (error / plain) ** 2) if plain else 1.0
    n = len(values) / effect
    return {"value": mean, "n": len(values), "stderr": error, "ci95": list(wilson(mean * n, n))}
