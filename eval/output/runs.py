"""Find and read scored runs: OUT, OUT/<model> or OUT/<model>/<set>, as the asking commands wrote them."""

import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

from core.errors import ContentError, RequestError, show_value
from core.files import read_object, require
from eval.measure.comparison import Run

RESULTS = "results.json"
PREDICTIONS = "predictions.jsonl"
SHOULD_AGREE = ("mode", "dtype")


def find_runs(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders of whole runs at `folder` or two levels below, and of unfinished ones.

    The model `base` comes first. A run is whole once it has its results.json, which is written last.
    """
    require(folder, "folder of results")
    places = {
        path.parent
        for level in ("", "*/", "*/*/")
        for name in (RESULTS, PREDICTIONS)
        for path in folder.glob(level + name)
    }
    ordered = sorted(places, key=lambda place: (place.parent.name != "base", place.parts))
    return (
        [place for place in ordered if (place / RESULTS).is_file()],
        [place for place in ordered if not (place / RESULTS).is_file()],
    )


def read_run(folder: Path) -> Run:
    """Read one run, its rows in order; `ContentError` where its files are damaged or disagree."""
    facts = read_object(folder / RESULTS)
    where = str(folder / RESULTS)
    model, dataset = _text(facts, "model", where), _text(facts, "set", where)
    path = folder / PREDICTIONS
    if not path.is_file():
        raise ContentError(f"{path}: not found beside {RESULTS}; score {model} on {dataset} again")
    records = sorted(_records(path), key=lambda record: record[0])
    if not records:
        raise ContentError(f"{path}: no predictions; score {model} on {dataset} again")
    for one, other in pairwise(records):
        if one[0] == other[0]:
            raise ContentError(f"{path}: row {one[0]} stands there twice; score {model} on {dataset} again")
    rows, gold, predicted, groups = (list(column) for column in zip(*records, strict=True))
    if None in groups and any(group is not None for group in groups):
        raise ContentError(f"{path}: row {rows[groups.index(None)]} has no group, others have one")
    run = Run(model, dataset, str(folder), rows, gold, predicted, None if None in groups else groups, facts)
    _check_totals(run)
    return run


def _records(path: Path) -> Iterator[tuple[int, str, str, str | None]]:
    """Yield (row, expected, predicted, group) of each line; `ContentError` names the line that is broken."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"{path}:{number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ContentError(f"{where}: not a JSON object; the run was cut or changed") from error
            if not isinstance(record, dict):
                raise ContentError(f"{where}: found {show_value(record)}, expected an object")
            row, group = record.get("row"), record.get("group")
            if type(row) is not int:
                raise ContentError(f"{where}: row: found {show_value(row)}, expected a whole number")
            expected = _text(record, "expected_output", where)
            yield (
                row,
                expected,
                _text(record, "predicted_output", where),
                None if group is None else str(group),
            )


def _text(record: dict[str, object], field: str, where: str) -> str:
    value = record.get(field)
    if not isinstance(value, str):
        raise ContentError(f"{where}: {field}: found {show_value(value)}, expected a text")
    return value


def _check_totals(run: Run) -> None:
    """Refuse a run whose results.json does not follow from its predictions."""
    n, accuracy = run.facts.get("n"), run.facts.get("accuracy")
    if n != len(run.rows):
        raise ContentError(
            f"{run.source}: {len(run.rows)} predictions, but n in {RESULTS} is {show_value(n)}"
        )
    right = sum(run.correct) / len(run.rows)
    if not isinstance(accuracy, int | float) or not abs(accuracy - right) < 1e-6:
        found = show_value(accuracy)
        raise ContentError(f"{run.source}: predictions give accuracy {right:.6f}, but {RESULTS} says {found}")


def check_same_rows(runs: Sequence[Run]) -> list[str]:
    """Refuse runs of one set that did not answer the same rows; return warnings on how they were asked.

    Raises `RequestError` naming both runs and what differs.
    """
    first, *others = runs
    warnings = []
    for run in others:
        both = f"{run.source} and {first.source}"
        if _data(run) != _data(first):
            raise RequestError(f"{both} were scored on different data ({_data(run)} and {_data(first)})")
        if run.rows != first.rows:
            raise RequestError(f"{both}: {_rows_differ(run, first)}")
        if run.gold != first.gold or run.groups != first.groups:
            raise RequestError(f"{both}: the same rows have other expected answers or groups")
        for key in SHOULD_AGREE:
            if run.facts.get(key) != first.facts.get(key):
                values = f"{show_value(run.facts.get(key))} and {show_value(first.facts.get(key))}"
                warnings.append(f"{both} were scored with another {key}: {values}")
    return warnings


def _data(run: Run) -> str:
    hashes = run.facts.get("hashes")
    return str(hashes.get("data"))[:19] if isinstance(hashes, dict) else "no hash"


def _rows_differ(run: Run, first: Run) -> str:
    lacking = sorted(set(first.rows) - set(run.rows)) or sorted(set(run.rows) - set(first.rows))
    shown = ", ".join(map(str, lacking[:5])) + (", …" if len(lacking) > 5 else "")
    return (
        f"{len(run.rows)} and {len(first.rows)} rows; only one has row {shown}; "
        "score both with the same --limit to compare them"
    )
