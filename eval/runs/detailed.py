"""The defect guide's evaluation_results.json read back: its rows, or figures by type where it has none."""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from core.errors import ContentError, show_value
from core.files import read_object
from eval.runs.judgement import KINDS, ScoredExample, ScoredRun, assemble, kinds_of, optional_text

DETAILED = "evaluation_results.json"
Counts = Mapping[str, tuple[int, int]]  # by name: right ones, all


def read_detailed(path: Path) -> ScoredRun:
    """Return the run of such a file; one without `results` has no rows, so that nothing can be paired;
    `ContentError` where it has no counts by type or subtype either."""
    fields = read_object(path)
    own = path.parent.name if path.name == DETAILED else path.stem
    model, dataset = optional_text(fields, "model") or own, optional_text(fields, "test_dataset") or "rows"
    if not fields.get("results"):
        return _counted(path, model, dataset, fields)
    rows = list(detailed_rows(path))
    records = [_answer(f"{path} result {place}", row) for place, row in enumerate(rows)]
    asked = [optional_text(row, "user") for row in rows]
    data = hashlib.sha256("\n".join(map(str, asked)).encode(errors="surrogatepass")).hexdigest()
    facts = {"hashes": {"data": f"guide {data}"}} if None not in asked else {}
    return assemble(model, dataset, path, records, facts)


def detailed_rows(path: Path) -> Iterator[dict[str, object]]:
    """Yield the rows of such a file, each with its place as `row`; `ContentError` for what is none."""
    results = read_object(path).get("results")
    for place, row in enumerate(results if isinstance(results, list) else [results]):
        if not isinstance(row, dict):
            raise ContentError(f"{path}: results: found {show_value(row)}, expected a list of objects")
        yield {**row, "row": place}


def _answer(where: str, row: Mapping[str, object]) -> ScoredExample:
    gold, predicted = optional_text(row, "expected"), optional_text(row, "predicted")
    correct = row.get("is_correct", gold == predicted)
    if gold is None or not isinstance(correct, bool):
        raise ContentError(
            f"{where}: found {show_value(row)}, expected a row with expected, predicted and is_correct"
        )
    kinds = kinds_of(row, gold)
    return ScoredExample(str(row["row"]), gold, predicted or "", correct, where, kinds=kinds)


def _counted(path: Path, model: str, dataset: str, fields: Mapping[str, object]) -> ScoredRun:
    """Return a run without rows, whose answers are as many right and wrong ones as the file counts."""
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


def _counts(path: Path, kind: str, fields: Mapping[str, object]) -> Counts:
    shares = fields.get(f"{kind}_accuracy")
    counts = {}
    for name, share in shares.items() if isinstance(shares, dict) else ():
        right, total = (share.get(key) if isinstance(share, dict) else None for key in ("correct", "total"))
        if type(right) is not int or type(total) is not int or not 0 <= right <= total or not total:
            raise ContentError(
                f"{path}: {kind}_accuracy: {name}: found {show_value(share)}, "
                "expected counts: correct and total"
            )
        counts[name] = (right, total)
    return counts
