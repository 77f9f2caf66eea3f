"""python -m eval.suite eval/suites/toolkit.yaml --model models/demo-base --adapter rte --out results/toolkit

Runs several commands over models that are opened once, and puts what they found into one table and one
page. Writes OUT/<step>/<model>/<set>/… as each command does. docs/eval-suite.md explains suites.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from core.cli import examples
from core.errors import CLI, RequestError, run
from core.files import read_object, write_json, write_text
from eval import compare, report
from eval.backends import shards
from eval.reports.compared import compare_results
from eval.reports.numbers import NONE, Table, grid, interval, percent
from eval.runs.results import RESULTS, check_new
from eval.scoring.candidates import open_models
from eval.scoring.options import ScoringRequest, model_options, run_options, take
from eval.scoring.pipeline import score_opened
from eval.scoring.steps import read_steps
from eval.scoring.task import Figure, Prepared

CAPTION = "All steps"
Found = dict[str, dict[str, dict[str, Figure]]]  # by step, then by figure, then by model


@click.command(
    context_settings=CLI,
    epilog=examples(
        "tuneyard eval suite eval/suites/toolkit.yaml --model models/demo-base --skip cmmlu "
        "--limit 1 --out results/suite",
        "tuneyard eval suite eval/suites/toolkit.yaml --model models/demo-base --adapter demo-rte "
        "--skip cmmlu --skip talks --limit 1 --out results/suite-of-rte",
    ),
)
@click.argument("suite", type=click.Path(path_type=Path), metavar="SUITE.yaml")
@model_options
@click.option("--skip", multiple=True, metavar="STEP", help="Leave this step out. Repeatable.")
@run_options
def cli(suite: Path, skip: tuple[str, ...], **given: Any) -> None:
    """Score a base model and adapters with all commands that a suite's file names.

    What is wrong with any step is said before a model is loaded.
    """
    steps = read_steps(suite, given.keys() - {"limit"}, skip)
    shared = {**given, "by": "eval.suite"}
    request = take(given)
    if request.out.exists() and not (request.resume or request.force):
        raise RequestError(f"{request.out} exists: --resume resumes it, --force starts it anew")
    plans = {step.name: step.prepare(shared) for step in steps}
    for own, _, _ in plans.values():
        check_new(own.out, resume=own.resume, force=own.force)
    opened = open_models(request)
    for name, (own, task, sets) in plans.items():
        if shards.first():
            click.echo(f"\n{name}: {task.command}")
        score_opened(own, task, sets, opened)
    if shards.first():
        tell(request, plans, [candidate.name for candidate in opened.candidates])


def tell(request: ScoringRequest, plans: Mapping[str, Prepared], models: Sequence[str]) -> None:
    """Write table.md and table.json over all steps, and report.html where answers were right or wrong."""
    found: Found = {}
    judged: list[str] = []
    for step, (own, task, sets) in plans.items():
        found[step] = {}
        for model in models:
            results = {one.name: read_object(own.out / model / one.name / RESULTS) for one in sets}
            for figure, value in task.table(results).items():
                found[step].setdefault(figure, {})[model] = value
            for name in (name for name, one in results.items() if "accuracy" in one):
                label = step if len(sets) == 1 else f"{step}/{name}"
                judged.append(f"{model}/{label}={own.out / model / name}")
    table = steps_table(found, models)
    facts: dict[str, object] = {
        "steps": {
            step: {name: {model: asdict(one) for model, one in own.items()} for name, own in figures.items()}
            for step, figures in found.items()
        }
    }
    if judged:
        whole = compare_results(judged)
        each = [replace(section, decided_by="") for section in whole.comparison.sets]
        alone = replace(whole.comparison, sets=each, mean=None)  # different tasks have no mean
        whole = replace(whole, comparison=alone, tables={CAPTION: table})
        compare.write(whole, request.out, facts)
        page = report.render(whole, f"Suite {request.out.name}", module="eval.suite")
        report.write(page, request.out / "report.html")
    else:
        write_text(request.out / "table.md", grid(table) + "\n")
        write_json(request.out / "table.json", facts)
        click.echo(f"\n{grid(table)}")


def steps_table(found: Found, models: Sequence[str]) -> Table:
    """Return a row for each figure of each step (one where it has none) and a column for each model."""
    rows = []
    for step, figures in found.items():
        if not figures:
            rows.append([f"{step}: nothing to measure in the answers", "0", "", *[NONE for _ in models]])
        for name, by_model in figures.items():
            first = next(iter(by_model.values()))
            majority = "" if first.majority is None else percent(first.majority)
            cells = [_cell(by_model[model]) if model in by_model else NONE for model in models]
            rows.append([f"{step}: {name}", f"{first.n:,}", majority, *cells])
    return Table(["figure (95 % interval)", "n", "majority-class baseline", *models], rows)


def _cell(one: Figure) -> str:
    low, high = one.ci95
    if one.share:
        return interval((one.value, low, high))
    return f"{one.value:.4g} ({low:.4g}–{high:.4g})"


if __name__ == "__main__":
    run(cli)
