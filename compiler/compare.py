"""Rows compared with rows: ids and rows that came before, conflicts, leaks between splits."""

from compiler.problems import Problems
from compiler.seen import Seen, repeated
from core.errors import Problem


def compare(splits: dict[str, Seen], group: str | None, problems: Problems) -> dict[str, object]:
    """Warn of what rows do to each other; return what the manifest says about the splits."""
    there = {split: seen for split, seen in splits.items() if seen.rows}
    report: dict[str, object] = {split: seen.summary() for split, seen in there.items()}
    for seen in there.values():
        _repeats(seen, problems)
    first = next(iter(there), "")
    for other in list(there)[1:]:
        for row, twin in leaks(there[first], there[other]):
            message = f"the same input stands in {other}: {there[other].place(twin)}"
            problems.warn(Problem("W208", there[first].place(row), message))
        if group:
            shared = set(there[other].groups).intersection(there[first].groups)
            report[f"{group} shared by {first} and {other}"] = len(shared)
    return report


def leaks(train: Seen, other: Seen) -> list[tuple[int, int]]:
    """Return (training row, row of the other split) for every training row whose input is there too."""
    there = dict(zip(other.prompts, range(other.rows), strict=True))
    return [(row, there[key]) for row, key in enumerate(train.prompts) if key in there]


def _repeats(seen: Seen, problems: Problems) -> None:
    for code, what, keys in (("W201", "the same id", seen.ids), ("W202", "the same row", seen.pairs)):
        for first, again in repeated(keys):
            problems.warn(Problem(code, seen.place(again), f"{what} as in {seen.place(first)}"))
    for first, again in repeated(seen.prompts):
        if seen.pairs[first] != seen.pairs[again]:
            message = f"the same input as in {seen.place(first)}, another answer"
            problems.warn(Problem("W203", seen.place(again), message))
