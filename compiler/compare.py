"""Rows compared with rows: ids and rows that came before, conflicts, leaks between splits."""

from collections.abc import Iterable
from typing import Any

from compiler.fingerprints import Fingerprints, repeated
from compiler.near import near_repeats, near_rows
from compiler.problems import Problems
from compiler.spec import PART


def compare(
    splits: dict[str, Fingerprints], group: str | None, problems: Problems, *, near: bool = False
) -> dict[str, object]:
    """Warn of rows like others, within splits and beside the training one; return the manifest's `fit`."""

    def warn(code: str, form: str, twins: Iterable[Any], rows: Fingerprints, others: Fingerprints) -> None:
        found = list(twins)
        said = ((rows.place(row), form.format(others.place(twin), *share)) for row, twin, *share in found)
        problems.warn_of(code, len(found), said)

    there = {split: seen for split, seen in splits.items() if seen.rows}
    report: dict[str, object] = {split: seen.summary() for split, seen in there.items()}
    for seen in there.values():
        same, conflicts = seen.repeats()
        warn("W201", "the same id as in {}", repeated(seen.ids), seen, seen)
        warn("W202", "the same row as in {}", same, seen, seen)
        warn("W203", "the same input as in {}, another answer", conflicts, seen, seen)
        if near:
            warn("W212", "nearly the same as {} ({:.2f})", near_repeats(seen.texts), seen, seen)
    first = PART if PART in there else next(iter(there), "")
    for other in [split for split in there if split != first]:
        train, test = there[first], there[other]
        warn("W208", f"the same input stands in {other}: {{}}", leaks(train, test), train, test)
        if near:
            form = f"nearly the same input stands in {other}: {{}} ({{:.2f}})"
            warn("W213", form, near_rows(train.texts, test.texts), train, test)
        if group and not train.counted_only:
            shared = set(test.groups).intersection(train.groups)
            report[f"{group} shared by {first} and {other}"] = len(shared)
    return report


def leaks(train: Fingerprints, other: Fingerprints) -> list[tuple[int, int]]:
    """Return (training row, row of the other split) for every training row whose input is there too."""
    there = {key: row for row, key in enumerate(other.prompts)}
    return [(row, there[key]) for row, key in enumerate(train.prompts) if key in there]
