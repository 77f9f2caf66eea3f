"""Rows compared with rows: ids and rows that came before, conflicts, leaks between splits."""

from collections.abc import Iterable
from functools import partial

from compiler.fingerprints import Fingerprints, repeated
from compiler.near import Twin, near_repeats, near_rows
from compiler.problems import Problems
from compiler.spec import PART
from core.errors import Problem


def compare(
    splits: dict[str, Fingerprints], group: str | None, problems: Problems, *, near: bool = False
) -> dict[str, object]:
    """Warn of what rows do to each other; return what the manifest says about the splits.

    The split that is trained on is `train`, or the first where none is called so.
    """
    there = {split: seen for split, seen in splits.items() if seen.rows}
    report: dict[str, object] = {split: seen.summary() for split, seen in there.items()}
    for seen in there.values():
        _repeats(seen, problems)
        if near:
            _nearly("W212", "nearly the same as {} ({:.2f})", near_repeats(seen.texts), seen, seen, problems)
    first = PART if PART in there else next(iter(there), "")
    for other in [split for split in there if split != first]:
        train, test = there[first], there[other]
        _leaked(train, test, other, problems)
        if near:
            form = f"nearly the same input stands in {other}: {{}} ({{:.2f}})"
            _nearly("W213", form, near_rows(train.texts, test.texts), train, test, problems)
        if group and not train.counted_only:
            shared = set(there[other].groups).intersection(there[first].groups)
            report[f"{group} shared by {first} and {other}"] = len(shared)
    return report


def leaks(train: Fingerprints, other: Fingerprints) -> list[tuple[int, int]]:
    """Return (training row, row of the other split) for every training row whose input is there too."""
    there = {key: row for row, key in enumerate(other.prompts)}
    return [(row, there[key]) for row, key in enumerate(train.prompts) if key in there]


def _nearly(
    code: str, form: str, twins: Iterable[Twin], rows: Fingerprints, others: Fingerprints, problems: Problems
) -> None:
    found = list(twins)
    said = (form.format(others.place(twin), share) for _, twin, share in found)
    places = (rows.place(row) for row, *_ in found)
    problems.warn_of(code, len(found), map(partial(Problem, code), places, said))


def _leaked(train: Fingerprints, other: Fingerprints, name: str, problems: Problems) -> None:
    found = leaks(train, other)
    said = (f"the same input stands in {name}: {other.place(twin)}" for _, twin in found)
    places = (train.place(row) for row, _ in found)
    problems.warn_of("W208", len(found), map(partial(Problem, "W208"), places, said))


def _repeats(seen: Fingerprints, problems: Problems) -> None:
    same, conflicts = seen.repeats()
    for code, form, found in (
        ("W201", "the same id as in {}", repeated(seen.ids)),
        ("W202", "the same row as in {}", same),
        ("W203", "the same input as in {}, another answer", conflicts),
    ):
        said = (form.format(seen.place(first)) for first, _ in found)
        places = (seen.place(again) for _, again in found)
        problems.warn_of(code, len(found), map(partial(Problem, code), places, said))
