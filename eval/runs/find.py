"""Find and read scored runs: our results folders, the held-out rows of a sweep, other tools' logs."""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import cast

from tuneyard.core.errors import ContentError, RequestError, nearest, show_value
from tuneyard.core.files import check_characters, near_name, require
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.core.records.record import line_checker, read_record
from tuneyard.core.records.results_record import ResultsRecord
from tuneyard.core.text.quoting import shell
from tuneyard.core.text.references import parse_reference
from tuneyard.core.training.metrics import ACCURACY
from tuneyard.core.training.sweeps import POINTS, SWEEP, points_file
from tuneyard.core.weights.adapter_files import CONFIG
from tuneyard.eval.figures.answers import answer_key
from tuneyard.eval.figures.labels import label_logs
from tuneyard.eval.runs.findings import ChosenOnTheseRows, HeldOutHalf, RunFinding, UnfinishedRun
from tuneyard.eval.runs.logs import (
    by_model_and_dataset,
    deciding_scores,
    has_figures,
    log_readers,
    logs_in,
    measured_records,
    read_log,
)
from tuneyard.eval.runs.logs.defect import DETAILED
from tuneyard.eval.runs.results import BASE, COMPARED, PREDICTIONS, REPEATS, RESULTS, RUN, read_run
from tuneyard.eval.runs.scored_run import (
    IDS,
    OF_ANSWERS,
    Record,
    Row,
    RunFacts,
    RunsByDataset,
    RunsByModel,
    ScoredRun,
    assemble,
    confidence_of,
    first_text,
    has_metric,
    measurable,
    model_name,
    optional_text,
    text_field,
)
from tuneyard.eval.runs.sweeps import has_chosen, held_out_runs
from tuneyard.eval.runs.tables import placed_lines

ANSWERS = ("expected_output", "predicted_output")
TEXTS = ("expected_output", "reference", "gold"), ("model_output", "prediction")
"""Fields of the expected and the predicted text of a row that need not have either."""
LEVELS = ("", "[!.]*/", "[!.]*/[!.]*/")
SHOWN_RUNS = 5


@dataclass(frozen=True, slots=True)
class ScoredRunSource:
    """One argument of the command: a folder or a log, and the names that its run is to have."""

    path: Path
    model: str = ""
    dataset: str = ""


def parse_source(text: str) -> ScoredRunSource:
    """Read `PATH`, `MODEL=PATH` or `MODEL/SET=PATH`. An existing path is never split at its `=`.

    A file of our own run or comparison stands for its folder.
    """
    named = parse_reference(text, lambda path: Path(path).exists(), named=True, weight="never")
    path = require(Path(named.reference), "results")
    folder = path.parent
    is_ours = path.name == DETAILED or (path.name == PREDICTIONS and "row" in next(placed_lines(path), {}))
    if path.name == RESULTS:
        is_ours = (folder / PREDICTIONS).is_file()
    if path.name in (RUN, SWEEP, POINTS, *COMPARED) or (is_ours and (folder / RESULTS).is_file()):
        path = folder
    model, _slash, dataset = (named.name or "").partition("/")
    return ScoredRunSource(path, model, dataset)


def read_scored_runs(
    sources: Sequence[ScoredRunSource], metric: str = ACCURACY.name
) -> tuple[RunsByDataset, list[RunFinding]]:
    """Read every run of the sources; the runs by dataset and model, in their order, and findings.

    With a `metric` that is none of answers, a run need not have answers.

    Models of one name that answered differently are named with the folder they came from. A run that several
    sources name differently has every one of these names; without names it counts once.
    """
    runs: list[tuple[ScoredRunSource, ScoredRun]] = []
    findings: list[RunFinding] = []
    for source in sources:
        folder, reported = source.path, None
        if points_file(folder):
            folder, reported = held_out_runs(folder)
            findings.append(HeldOutHalf(source.path))
        whole, unfinished = find_scored_runs(folder)
        findings += map(UnfinishedRun, unfinished)
        runs_of_source: list[ScoredRun] = []
        for place in whole:
            if place.is_dir():
                runs_of_source.append(read_scored_run(place, metric))
            elif metric in OF_ANSWERS:
                runs_of_log = read_log(place)
                runs_of_source += runs_of_log
                findings += deciding_scores(place, runs_of_log)
            else:
                runs_of_source += _read_measured(place, metric)
        if reported is not None:
            runs_of_source = [run for run in runs_of_source if run.model in reported]
        runs += [(source, run) for run in _named(runs_of_source, source)]
    chosen = dict.fromkeys(str(source.path) for source, run in runs if has_chosen(run))
    if chosen:
        findings.append(ChosenOnTheseRows(tuple(chosen)))
    return _distinct(runs, metric), findings


def _read_measured(log: Path, metric: str) -> list[ScoredRun]:
    """The runs of another tool's rows that have a metric, and need no answers."""
    if not has_figures(log):
        raise RequestError(
            _(
                "{path}: --metric reads fields of our own runs and of JSON Lines, and scores in "
                "other tools' logs, not of this file",
                path=log,
            )
        )
    runs = []
    for (model, dataset), records in by_model_and_dataset(log, measured_records(log)).items():
        runs.append(assemble(model, dataset, log, _measured_rows(log, records, metric), {}))
    return runs


def find_scored_runs(path: Path) -> tuple[list[Path], list[Path]]:
    """Find complete runs at `path` or two levels below, and the folders of unfinished runs.

    A complete run is a folder with results.json, which is written last, or a log file.
    """
    if path.is_file():
        return [path], []
    logs = sorted(logs_in(path, LEVELS))
    folders: set[Path] = set()
    for level in LEVELS:
        for name in (RESULTS, PREDICTIONS):
            folders.update(file.parent for file in path.glob(level + name))
    places = sorted(folders, key=_order)
    whole = [place for place in places if (place / RESULTS).is_file()]
    if not whole and not logs:
        patterns = sorted(pattern for reader in log_readers().values() for pattern in reader.files)
        fix = _("score a model first: tuneyard eval nli --model MODEL --dataset NAME --out results/MODEL")
        runs = [file.parent for level in LEVELS[1:] for file in sorted(Path().glob(level + RUN))]
        scored_runs = [str(run) for run in runs if any(run.glob(f"*/*/{RESULTS}"))]
        if scored_runs:
            shown_runs = ", ".join(scored_runs[:SHOWN_RUNS])
            fix = _(
                "runs are in {runs}: tuneyard eval compare {run} --out OUT",
                runs=shown_runs,
                run=shlex.quote(scored_runs[0]),
            )
        if (path / REPEATS).is_file():
            draw = shlex.quote(str(path / "draw-1"))
            raise RequestError(
                _(
                    "{path}: the draws of --repeat, with their mean in {file}; compare the models of "
                    "one: tuneyard eval compare {draw} --out OUT",
                    path=path,
                    file=REPEATS,
                    draw=shell(draw),
                )
            )
        if places or (path / RUN).is_file():
            raise RequestError(
                _("{path}: unfinished: run the command that wrote it again with --resume", path=path)
            )
        if (path / CONFIG).is_file():
            score = (
                f"tuneyard eval nli --model BASE --adapter {shlex.quote(str(path))} --dataset NAME --out OUT"
            )
            raise RequestError(_("{path}: an adapter; score it first: {command}", path=path, command=score))
        raise RequestError(
            _(
                "{path}: no {results} here or two levels below, and no {patterns}: {near_name}; {fix}",
                path=path,
                results=RESULTS,
                patterns=joined(patterns, _(" or ")),
                near_name=near_name(path / RESULTS),
                fix=fix,
            )
        )
    return whole + logs, [place for place in places if place not in whole]


def _order(folder: Path) -> tuple[object, ...]:
    """Sort key: the base first, then the order of run.json, then by name."""
    model, dataset = folder.parent.name, folder.name
    run = read_run(folder.parent.parent)
    model_place = [*run["models"], model].index(model)
    return model != BASE, model_place, model, [*run["datasets"], dataset].index(dataset), dataset


def _named(runs: list[ScoredRun], source: ScoredRunSource) -> list[ScoredRun]:
    for key, name in (("model", source.model), ("dataset", source.dataset)):
        names = list(dict.fromkeys(str(getattr(run, key)) for run in runs))
        if name and len(names) > 1:
            raise RequestError(
                _(
                    "{path}: one name ({name}) for several: {names}; leave the name out, or name the "
                    "folder of one",
                    path=source.path,
                    name=name,
                    names=", ".join(names),
                )
            )
    named = []
    for run in runs:
        model = source.model or model_name(run.model)
        named.append(replace(run, model=model, dataset=source.dataset or run.dataset))
    return named


def _distinct(runs: Sequence[tuple[ScoredRunSource, ScoredRun]], metric: str) -> RunsByDataset:
    """Keep each model and dataset once.

    Drop a second run with the same answers and the same values of the metric. Rename models whose runs
    differ to SOURCE/model.
    """
    kept: list[tuple[ScoredRunSource, ScoredRun]] = []
    kept_by_name: dict[tuple[str, str], list[ScoredRun]] = {}
    shared: set[str] = set()
    for source, run in runs:
        twins = kept_by_name.setdefault((run.model, run.dataset), [])
        if any(_equal(twin, run, metric) for twin in twins):
            continue
        kept.append((source, run))
        if twins:
            shared.add(run.model)
        twins.append(run)
    distinct: dict[str, dict[str, ScoredRun]] = {}
    for source, run in kept:
        renamed = run
        if run.model in shared:
            origin = source.path.parent if source.path.name == DETAILED else source.path
            renamed = replace(run, model=f"{origin.name}/{run.model}")
        other = distinct.setdefault(renamed.dataset, {}).setdefault(renamed.model, renamed)
        if other is not renamed:
            raise RequestError(
                _(
                    "{first} and {second} are both {model} on {dataset}; name them: first={first} "
                    "second={second}",
                    first=relative(other.source),
                    second=relative(renamed.source),
                    model=renamed.model,
                    dataset=renamed.dataset,
                )
            )
    return {dataset: _spelled_alike(by_model) for dataset, by_model in distinct.items()}


def _spelled_alike(runs: RunsByModel) -> RunsByModel:
    """The runs of a dataset; expected answers of logs that are equal are spelled alike in all of them."""
    spellings: dict[str, str] = {}
    for run in runs.values():
        if _is_ours(run):
            spellings.update((answer_key(gold), gold) for gold in run.gold)
    alike = {}
    for model, run in runs.items():
        if _is_ours(run):
            alike[model] = run
            continue
        spelled = {gold: spellings.setdefault(answer_key(gold), gold) for gold in set(run.gold)}
        gold = [spelled[answer] for answer in run.gold]
        predicted = [spelled.get(answer, answer) for answer in run.predicted]
        alike[model] = replace(run, gold=gold, predicted=predicted)
    return alike


def _is_ours(run: ScoredRun) -> bool:
    return "model" in run.facts


def _equal(run: ScoredRun, other: ScoredRun, metric: str) -> bool:
    """True if two runs have the same rows with the same answers and values of the metric."""
    if (run.rows, run.predicted) != (other.rows, other.predicted):
        return False
    return run.column(metric) == other.column(metric)


def read_scored_run(place: Path, metric: str = ACCURACY.name) -> ScoredRun:
    """Read one scored run, a folder with results.json and predictions.jsonl.

    `ContentError` if its files are damaged or disagree. `RequestError` for a run without an accuracy, if no
    metric is named: only correct and incorrect answers can be compared row by row.
    """
    path = place / PREDICTIONS
    results = read_record(place / RESULTS, ResultsRecord)
    check_characters(json.dumps(results, ensure_ascii=False), place / RESULTS)
    model, dataset, facts = results["model"], results["dataset"], cast(RunFacts, results)
    if not path.is_file():
        raise ContentError(
            _(
                "{path}: not found beside {file}; score {model} on {dataset} again",
                path=path,
                file=RESULTS,
                model=model,
                dataset=dataset,
            )
        )
    if metric not in OF_ANSWERS:
        return assemble(model, dataset, place, _measured_rows(path, list(_predictions(path)), metric), facts)
    if "accuracy" not in facts:
        raise RequestError(
            _(
                "{path}: no accuracy in {file}; another figure of each example is compared by "
                "tuneyard eval compare --metric: {names}",
                path=place,
                file=RESULTS,
                names=", ".join(measurable(placed_lines(path))),
            )
        )
    run = assemble(model, dataset, place, map(_answered_row, _predictions(path)), facts)
    _check_totals(run)
    return run


def _measured_rows(path: Path, records: Sequence[Record], metric: str) -> list[Row]:
    """The rows of a run that need no answers. `RequestError` if none has the metric."""
    if not has_metric(records, metric):
        names = [*OF_ANSWERS, *measurable(records)]
        hint = nearest(metric, names, _("its metrics: {names}", names=", ".join(names)))
        raise RequestError(_("{path}: no row has {metric}; {hint}", path=path, metric=metric, hint=hint))
    return list(map(_measured_row, records))


def _measured_row(record: Record) -> Row:
    """A row whose answer need not be there. `ContentError` if it has no id to pair it by."""
    row = next((record[name] for name in IDS if isinstance(record.get(name), int | str)), None)
    if row is None:
        raise ContentError(
            _("{place}: no {names}: nothing to pair this row by", place=record["place"], names=", ".join(IDS))
        )
    gold, prediction = (first_text(record, names) for names in TEXTS)
    return Row(str(row), gold, prediction, False, None, record)


def _predictions(path: Path) -> Iterator[Record]:
    """Yield the lines of predictions.jsonl with their places. `ContentError` for one of another form."""
    check = line_checker(Prediction)
    for record in placed_lines(path):
        check(record, record["place"])
        yield record


def _answered_row(record: Record) -> Row:
    where, row = record["place"], record["row"]
    correct = record.get("correct")
    if isinstance(correct, bool):  # of tasks whose correct answers do not equal one expected text
        gold, predicted = (optional_text(record, name) or "" for name in ANSWERS)
    else:
        gold, predicted = (text_field(record, name, where) for name in ANSWERS)
        correct = gold == predicted
    confidence = None
    if isinstance(record.get("choices"), Mapping):
        confidence = confidence_of(list(label_logs(record).values()))
    return Row(str(row), gold, predicted, correct, confidence, record)


def _check_totals(run: ScoredRun) -> None:
    """Refuse a run whose results.json does not follow from its predictions."""
    n, accuracy = run.facts.get("n"), run.facts.get("accuracy")
    if n != len(run.rows):
        raise ContentError(
            _(
                "{path}: {number} predictions, but n in {file} is {n}",
                path=relative(run.source),
                number=len(run.rows),
                file=RESULTS,
                n=show_value(n),
            )
        )
    share = fmean(run.correct)
    if not isinstance(accuracy, int | float) or not share - 1e-6 < accuracy < share + 1e-6:
        raise ContentError(
            _(
                "{path}: predictions give accuracy {share:.6f}, but {file} has {accuracy}",
                path=relative(run.source),
                share=share,
                file=RESULTS,
                accuracy=show_value(accuracy),
            )
        )
