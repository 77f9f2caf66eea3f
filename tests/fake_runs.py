"""Fake runs for the tests of compare: folders as the asking commands write them."""

import hashlib
import json
import math
import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema_rs

from tests.conftest import ROOT
from tests.json_files import read_json, write_json, write_lines
from tuneyard.eval.compare.__main__ import MOST_ERRORS
from tuneyard.eval.judge import ask, sections
from tuneyard.eval.judge.ask import ComparedRuns
from tuneyard.eval.judge.conclusions import Comparison, Section
from tuneyard.eval.report import plots
from tuneyard.eval.report.html import Page, render
from tuneyard.eval.report.tables import document
from tuneyard.eval.report.verdict import decision, notes
from tuneyard.eval.runs.find import parse_source, read_scored_runs
from tuneyard.eval.runs.scored_run import ScoredRun

VALID = jsonschema_rs.validator_for(read_json(ROOT / "core/schemas/table.json")).is_valid
VERSION = {"tuneyard": "0.1.0"}
GOLD = ["yes", "no"] * 10


def write_run(
    out: Path,
    model: str,
    dataset: str,
    gold: Sequence[str],
    predicted: Sequence[str],
    groups: Sequence[str] | None = None,
    kinds: Mapping[str, Sequence[str]] | None = None,
    **facts: object,
) -> Path:
    """Write `out/model/dataset/{results.json,predictions.jsonl}` and return that folder."""
    folder = out / model / dataset
    folder.mkdir(parents=True)
    labels = sorted({*gold, *(predicted if len(gold) == 1 else ())})
    columns = {**({"cluster": groups} if groups else {}), **(kinds or {})}
    records = []
    for row, (expected, given) in enumerate(zip(gold, predicted, strict=True)):
        record: dict[str, object] = {
            "instruction": f"question {row}",
            "input": "",
            "expected_output": expected,
            "model_output": given,
            "predicted_output": given,
            "idx": row,
            "row": row,
            "choices": choices(labels, given, row),
            "label_mass": 0.8,
        }
        records.append(record | {name: values[row] for name, values in columns.items()})
    write_lines(folder / "predictions.jsonl", records)
    accuracy = sum(a == b for a, b in zip(gold, predicted, strict=True)) / len(gold)
    data = hashlib.sha256("".join(gold).encode()).hexdigest()
    results = {
        "model": model,
        "format": 2,
        "dataset": dataset,
        "mode": "choice",
        "accuracy": accuracy,
        "n": len(gold),
        "unparsed": list(predicted).count("unknown"),
        "labels": labels,
        "versions": VERSION,
        "hashes": {"model": "m", "adapters": {}, "data": data, "chat_template": "t"},
        "dtype": "fp32",
        "device": "cpu",
    }
    write_json(folder / "results.json", results | facts)
    return folder


def choices(labels: Sequence[str], given: str, row: int) -> dict[str, float]:
    """Return log-probabilities that sum to 0.8, of which the given answer has the most, if it is a label."""
    sure = random.Random(row).uniform(max(0.5, 1 / len(labels)), 1)
    rest = (1 - sure) / max(1, len(labels) - 1)
    return {label: round(math.log(0.8 * (sure if label == given else rest)), 6) for label in labels}


def answers(gold: Sequence[str], right: int, seed: int) -> list[str]:
    """Return answers of which exactly `right` are the expected ones, the places drawn by `seed`."""
    labels = sorted(set(gold))
    chosen = set(random.Random(seed).sample(range(len(gold)), right))
    return [g if i in chosen else labels[(labels.index(g) + 1) % len(labels)] for i, g in enumerate(gold)]


def demo(out: Path, **facts: object) -> None:
    """Write the four models and two sets of the demo, with its measured accuracies, n = 300 each."""
    two, three = ["yes", "no"] * 150, ["yes", "no", "maybe"] * 100
    for seed, (model, first, second) in enumerate(
        [("base", 150, 100), ("rte", 300, 148), ("mnli", 206, 295), ("merge", 259, 195)]
    ):
        write_run(out, model, "demo_rte_eval", two, answers(two, first, seed), **facts)
        write_run(out, model, "demo_mnli_eval", three, answers(three, second, seed + 10))


def by_dataset(runs: Iterable[ScoredRun]) -> dict[str, dict[str, ScoredRun]]:
    """Runs by dataset and model, in their order."""
    grouped: dict[str, dict[str, ScoredRun]] = {}
    for run in runs:
        grouped.setdefault(run.dataset, {})[run.model] = run
    return grouped


def compare(runs: Sequence[ScoredRun], base: str, decide_on: str = "", **how: Any) -> Comparison:
    """Compare a list of runs with the base; `how` as of `sections.compare`."""
    return sections.compare(by_dataset(runs), base, decide_on, **how)


def verdict(section: Section) -> str:
    """All sentences on a section."""
    return decision(section) + notes(section)


def table_json(runs: Sequence[ScoredRun], **how: Any) -> dict[str, Any]:
    """table.json of a comparison of these runs, read back; `how` as of `compare_runs`."""
    compared = ask.compare_runs(by_dataset(runs), **how)
    return json.loads(json.dumps(document(compared), allow_nan=False))


def page_of(compared: ComparedRuns, title: str = "x", errors: int = MOST_ERRORS, **parts: Any) -> str:
    """The page of a comparison with its plots; `parts` are those of `Page`."""
    page = Page(title, errors, **parts)
    return render(compared, page, plots.draw_plots(compared.comparison, compared.runs))


def fake_run(model: str, right: list[bool], dataset: str = "s", groups: list[str] | None = None) -> ScoredRun:
    """A run that answers yes to each row that it has right."""
    gold = ["yes"] * len(right)
    predicted = ["yes" if x else "unknown" for x in right]
    rows = [str(i) for i in range(len(right))]
    return ScoredRun(model, dataset, f"{model}/{dataset}", rows, gold, predicted, right, groups)


def labelled(model: str, gold: list[str], said: list[str], dataset: str = "s", **more: Any) -> ScoredRun:
    """A run whose answers are these labels; `more` are further columns."""
    right = [one == other for one, other in zip(gold, said, strict=True)]
    return ScoredRun(model, dataset, model, list(map(str, range(len(gold)))), gold, said, right, **more)


def flags(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Right answers of two models from the four counts of a 2 x 2 table."""
    return (
        [True] * (both + first) + [False] * (second + neither),
        [True] * both + [False] * first + [True] * second + [False] * neither,
    )


OLD, NEW = flags(40, 5, 30, 25)  # the second is shown to be better


def two_datasets() -> list[ScoredRun]:
    """The base and a better model on s and t."""
    return [fake_run(model, right, name) for name in "st" for model, right in (("base", OLD), ("a", NEW))]


def read_runs(*texts: object) -> tuple[list[ScoredRun], list[str]]:
    """Runs as `compare` reads them, and warnings."""
    runs, warnings = read_scored_runs([parse_source(str(text)) for text in texts])
    return [run for by_model in runs.values() for run in by_model.values()], warnings


def change_line(path: Path, number: int, **fields: object) -> None:
    """Replace fields of one line of predictions.jsonl."""
    lines = path.read_text(encoding="utf-8").splitlines()
    lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), **fields})
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
