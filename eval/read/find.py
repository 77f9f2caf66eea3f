"""Find and read scored runs: our results folders at any level, of a sweep those rows that it did not choose
on, and other tools' logs."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from tuneyard.core.documents import json_lines
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import read_object, require
from tuneyard.core.language import tr
from tuneyard.eval.read.logs import log_readers, logs_in, read_log
from tuneyard.eval.read.logs.defect import DETAILED
from tuneyard.eval.read.measured import measurable, measured_examples
from tuneyard.eval.read.results import PREDICTIONS, REPEATS, RESULTS
from tuneyard.eval.read.run import (
    ScoredExample,
    ScoredRun,
    assemble,
    confidence_of,
    kinds_of,
    optional_text,
    text_field,
    without,
)
from tuneyard.eval.statistics.rates import group_of

ANSWERS = ("expected_output", "predicted_output")
SWEEP = "sweep.json"
LEVELS = ("", "*/", "*/*/")
LARGEST = sys.float_info.max  # nan and inf are no log-probabilities, and integers have no end


@dataclass(frozen=True, slots=True)
class RunSource:
    """One argument of the command: a folder or a log, and the names that its run is to have."""

    path: Path
    model: str = ""
    dataset: str = ""


def parse_source(text: str) -> RunSource:
    """Read `PATH`, `MODEL=PATH` or `MODEL/SET=PATH`; what exists as a path is one."""
    name, equals, rest = text.partition("=")
    if not equals or Path(text).exists():
        return RunSource(require(Path(text), "results"))
    model, _, dataset = name.partition("/")
    return RunSource(require(Path(rest), "results"), model, dataset)


def read_runs(
    sources: Sequence[RunSource], metric: str = "", by: str = ""
) -> tuple[list[ScoredRun], list[str]]:
    """Return every run of the sources once, and warnings; with the values of a metric where one is named.
    `by` is a field that is read beside `type` and `subtype`, for a run of ours. Models of one name that
    answered differently are named with the folder they came from."""
    done: set[Path] = set()
    runs: list[tuple[RunSource, ScoredRun]] = []
    warnings: list[str] = []
    for source in sources:
        whole, unfinished = find_runs(source.path)
        warnings += [
            tr("{place}: left out, unfinished; resume with --resume", place=one) for one in unfinished
        ]
        new = [place for place in whole if place.resolve() not in done]
        done |= {place.resolve() for place in new}
        own = [run for place in new for run in _read(place, metric, by)]
        if (source.path / SWEEP).is_file():
            own = _held_out(source.path, own)
            said = "{place}: a sweep: compared on the examples that it did not choose on"
            warnings.append(tr(said, place=source.path))
        runs += [(source, run) for run in _named(own, source)]
    return _distinct(runs), warnings


def _read(place: Path, metric: str, by: str) -> list[ScoredRun]:
    if metric and place.is_file() and place.suffix not in (".jsonl", ".ndjson"):
        raise RequestError(
            f"{place}: --metric reads fields of our own runs and of JSON Lines, not of this file"
        )
    if metric or place.is_dir():
        return [read_run(place, by, metric)]
    return read_log(place)


def find_runs(path: Path) -> tuple[list[Path], list[Path]]:
    """Return whole runs at `path` or two levels below, and the folders of unfinished ones. A whole run is a
    folder with results.json, which is written last, or a log file. Next to an evaluation_results.json of
    ours are the predictions that it was made from."""
    if path.is_file():
        return [path.parent if path.name == DETAILED and (path.parent / RESULTS).is_file() else path], []
    logs = sorted(logs_in(path, LEVELS))
    names = (RESULTS, PREDICTIONS)
    folders = {file.parent for level in LEVELS for name in names for file in path.glob(level + name)}
    places = sorted((folder for folder in folders if folder.parent.name != REPEATS), key=_order)
    whole = [place for place in places if (place / RESULTS).is_file()]
    if not whole and not logs:
        patterns = sorted(pattern for reader in log_readers().values() for pattern in reader.files)
        raise RequestError(
            f"{path}: no {RESULTS} here or two levels below, and no {' or '.join(patterns)}; score something "
            "first"
        )
    return whole + logs, [place for place in places if place not in whole]


def _order(folder: Path) -> tuple[object, ...]:
    """The base first, then as they were asked (run.json), then by name."""
    model, dataset = folder.parent.name, folder.name
    journal = folder.parent.parent / "run.json"
    asked = read_object(journal) if journal.is_file() else {}
    named = (("models", model), ("sets", dataset))
    return (model != "base", *((_position(asked.get(part), name), name) for part, name in named))


def _position(names: object, name: str) -> int:
    listed = list(names) if isinstance(names, dict) else []
    return listed.index(name) if name in listed else len(listed)


def _named(runs: list[ScoredRun], source: RunSource) -> list[ScoredRun]:
    for key, name in (("model", source.model), ("dataset", source.dataset)):
        known = list(dict.fromkeys(str(getattr(run, key)) for run in runs))
        if name and len(known) > 1:
            raise RequestError(f"{source.path}: one name ({name}) for several: {', '.join(known)}")
    return [
        replace(run, model=source.model or run.model, dataset=source.dataset or run.dataset) for run in runs
    ]


def _distinct(runs: Sequence[tuple[RunSource, ScoredRun]]) -> list[ScoredRun]:
    """Each model and set once: a double that answered alike is dropped, others become SOURCE/model."""
    kept: list[tuple[RunSource, ScoredRun]] = []
    shared: set[str] = set()
    for source, run in runs:
        twins = [other for _, other in kept if (other.model, other.dataset) == (run.model, run.dataset)]
        if any((twin.rows, twin.predicted) == (run.rows, run.predicted) for twin in twins):
            continue
        kept.append((source, run))
        shared |= {run.model} if twins else set()
    named = [
        replace(run, model=f"{_origin(source.path)}/{run.model}") if run.model in shared else run
        for source, run in kept
    ]
    seen: dict[tuple[str, str], ScoredRun] = {}
    for run in named:
        other = seen.setdefault((run.model, run.dataset), run)
        if other is not run:
            raise RequestError(
                f"{other.source} and {run.source} are both {run.model} on {run.dataset}; "
                f"name them: first={other.source} second={run.source}"
            )
    return named


def _origin(path: Path) -> str:
    return path.parent.name if path.name == DETAILED else path.name


def read_run(place: Path, by: str = "", metric: str = "") -> ScoredRun:
    """Read one run of ours, with the values of a metric where one is named, then also any JSON Lines.
    `ContentError` where its files are damaged or disagree. `RequestError` for one without an accuracy, if no
    metric is named: only correct and incorrect answers can be compared row by row."""
    ours = place.is_dir()
    path = place / PREDICTIONS if ours else place
    facts = read_object(place / RESULTS) if ours else {"model": place.stem, "set": "rows"}
    model, dataset = (text_field(facts, name, str(place / RESULTS)) for name in ("model", "set"))
    if not metric and "accuracy" not in facts:
        found = ", ".join(list(facts)[:8])
        raise RequestError(
            f"{place}: no accuracy in {RESULTS} (found {found}); another figure of each example is compared "
            f"by tuneyard eval compare --metric: {', '.join(measurable(path))}"
        )
    if not path.is_file():
        raise ContentError(f"{path}: not found beside {RESULTS}; score {model} on {dataset} again")
    if metric:
        return assemble(model, dataset, place, measured_examples(path, metric), facts)
    records = (_record(f"{path}:{number}", record, by) for number, record in json_lines(path))
    run = assemble(model, dataset, place, records, facts)
    _check_totals(run)
    return run


def _record(where: str, record: dict[str, object], by: str) -> ScoredExample:
    row = record.get("row")
    if type(row) is not int:
        raise ContentError(f"{where}: row: found {show_value(row)}, expected a whole number")
    correct = record.get("correct")
    group, confidence = group_of(record), _confidence(where, record.get("choices"))
    if isinstance(correct, bool):  # of tasks where right is not what equals one expected text
        gold, predicted = (optional_text(record, name) or "" for name in ANSWERS)
    else:
        gold, predicted = (text_field(record, name, where) for name in ANSWERS)
        correct = gold == predicted
    kinds = kinds_of(record, gold)
    if by and (value := optional_text(record, by)) is not None:
        kinds[by] = value
    return ScoredExample(str(row), gold, predicted, correct, where, group, kinds, confidence)


def _confidence(where: str, choices: object) -> float | None:
    """How sure the answer was, by the labels' log-probabilities; `ContentError` where they are none."""
    if not isinstance(choices, Mapping):
        return None
    logs = [log for log in choices.values() if isinstance(log, float | int) and -LARGEST <= log <= LARGEST]
    if not logs or len(logs) < len(choices):
        raise ContentError(f"{where}: choices: found {show_value(choices)}, expected log-probabilities")
    return confidence_of(logs)


def _check_totals(run: ScoredRun) -> None:
    """Refuse a run whose results.json does not follow from its predictions."""
    n, accuracy = run.facts.get("n"), run.facts.get("accuracy")
    if n != len(run.rows):
        raise ContentError(
            f"{run.source}: {len(run.rows)} predictions, but n in {RESULTS} is {show_value(n)}"
        )
    right = fmean(run.correct)
    if not isinstance(accuracy, int | float) or not right - 1e-6 < accuracy < right + 1e-6:
        found = show_value(accuracy)
        raise ContentError(f"{run.source}: predictions give accuracy {right:.6f}, but {RESULTS} says {found}")


def _held_out(folder: Path, runs: Sequence[ScoredRun]) -> list[ScoredRun]:
    """The runs of a sweep that answer its question, each with the held-out examples alone, and a single
    adapter by its own name."""
    found, fields = read_object(folder / SWEEP), ("points", "axes", "rows_to_choose_on")
    if lacking := [name for name in fields if name not in found]:
        shown = show_value(list(found))
        raise ContentError(f"{folder / SWEEP}: no {lacking[0]} (found {shown}): sweep again")
    points, axes, chose = map(found.get, fields)
    if not (isinstance(points, Mapping) and isinstance(axes, list) and isinstance(chose, Mapping)):
        raise ContentError(
            f"{folder / SWEEP}: points, axes or rows_to_choose_on: not as eval.sweep writes them"
        )
    names = {"base": "base", **_singles(points, axes)}
    names.setdefault(str(found.get("ship")), str(found.get("ship")))
    return [
        without(replace(run, model=name), {str(row) for row in rows})
        for model, name in names.items()
        for run in runs
        if run.model == model and isinstance(rows := chose.get(run.dataset), list)
    ]


def _singles(points: Mapping[str, object], axes: Sequence[object]) -> dict[str, str]:
    """Return the model that is each adapter alone at weight 1, with the adapter's name, in their order."""
    if len(axes) < 2:
        return {}
    return {
        model: str(axis)
        for axis in axes
        for model, point in points.items()
        if point == [float(other == axis) for other in axes]
    }
