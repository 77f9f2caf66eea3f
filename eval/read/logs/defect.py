"""The defect guide's evaluation_results.json: its rows, or its counts by type where it has none."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import read_object
from tuneyard.eval.read.logs import WITHOUT_NAME, LoggedRow, LogReader
from tuneyard.eval.read.run import KINDS, ScoredExample, ScoredRun, kinds_of, optional_text

DETAILED = "evaluation_results.json"
MOST_COUNTED = 1_000_000  # examples of a type: each of them is one answer in memory


def detailed_rows(path: Path) -> Iterator[LoggedRow]:
    """Yield the rows under `results`, paired by their places in the list."""
    fields = read_object(path)
    model, dataset = _names(path, fields)
    results = fields.get("results") or []
    for number, row in enumerate(results if isinstance(results, list) else [results]):
        if not isinstance(row, dict):
            raise ContentError(f"{path}: results: found {show_value(row)}, expected a list of objects")
        place = f"{path} result {number}"
        gold, predicted = optional_text(row, "expected"), optional_text(row, "predicted")
        correct = row.get("is_correct", gold == predicted)
        if gold is None or not isinstance(correct, bool):
            raise ContentError(
                f"{place}: found {show_value(row)}, expected a row with expected, predicted and is_correct"
            )
        example = ScoredExample(str(number), gold, predicted or "", correct, place, kinds=kinds_of(row, gold))
        question = optional_text(row, "user") or ""
        yield LoggedRow(example, model, dataset, question and f"user {question}", question)


def _names(path: Path, fields: Mapping[str, object]) -> tuple[str, str]:
    folder = path.parent.name if path.name == DETAILED else path.stem
    model = optional_text(fields, "model") or folder
    return model, optional_text(fields, "test_dataset") or WITHOUT_NAME


def counted(path: Path) -> ScoredRun:
    """Make a run without rows, with as many correct and incorrect answers as the file counts by type."""
    fields = read_object(path)
    model, dataset = _names(path, fields)
    found = {kind: counts for kind in KINDS if (counts := _counts(path, kind, fields))}
    sums = {tuple(map(sum, zip(*counts.values(), strict=True))) for counts in found.values()}
    if len(sums) != 1:
        what = "counts that do not add up alike" if sums else "neither results nor counts"
        raise ContentError(
            f"{path}: {what}; expected subtype_accuracy or type_accuracy with correct and total"
        )
    right, total = sums.pop()
    kinds = {
        kind: [name for name, (good, _) in counts.items() for _ in range(good)]
        + [name for name, (good, every) in counts.items() for _ in range(every - good)]
        for kind, counts in found.items()
    }
    flags = [True] * right + [False] * (total - right)
    unknown = {"majority": float("nan")}
    return ScoredRun(
        model, dataset, str(path), [], [""] * total, [""] * total, flags, kinds=kinds, facts=unknown
    )


def _counts(path: Path, kind: str, fields: Mapping[str, object]) -> dict[str, tuple[int, int]]:
    """By name: the right ones, and all."""
    shares = fields.get(f"{kind}_accuracy")
    counts = {}
    for name, share in shares.items() if isinstance(shares, dict) else ():
        right, total = (share.get(key) if isinstance(share, dict) else None for key in ("correct", "total"))
        if type(right) is not int or type(total) is not int or not 0 <= right <= total or not total:
            raise ContentError(
                f"{path}: {kind}_accuracy: {name}: found {show_value(share)}, "
                "expected counts: correct and total"
            )
        if total > MOST_COUNTED:
            raise ContentError(
                f"{path}: {kind}_accuracy: {name}: total: found {total}, expected at most {MOST_COUNTED:,}"
            )
        counts[name] = (right, total)
    return counts


detailed = LogReader(
    "guide",
    "the defect guide's evaluation_results",
    (".json",),
    (("results",), ("subtype_accuracy",), ("type_accuracy",)),
    detailed_rows,
    counts=counted,
)
