"""python -m eval.suite eval/suites/toolkit.yaml --model models/demo-base --adapter rte --out results/toolkit

Runs several commands over models that are opened once, and puts what they found into one table and one
page. Writes OUT/<step>/<model>/<set>/… as each command does. docs/eval-suite.md explains suites.
"""

import importlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from tuneyard.core.checkout import bundled
from tuneyard.core.cli import cli_command
from tuneyard.core.documents import read_yaml
from tuneyard.core.errors import (
    ContentError,
    RequestError,
    TuneyardError,
    nearest,
    resumed_by,
    run,
    show_value,
)
from tuneyard.core.files import names_folder, read_object, write_json, write_text
from tuneyard.core.language import lang_option, tr
from tuneyard.core.number_format import NONE, Table, grid, interval, percent
from tuneyard.eval import compare, report
from tuneyard.eval.backends import shards
from tuneyard.eval.judge.compared import compare_results
from tuneyard.eval.read.results import RESULTS, TABLE, TABLE_JSON, check_new, suite_run
from tuneyard.eval.scoring.candidates import open_models
from tuneyard.eval.scoring.command import Prepared, ScoringCommand
from tuneyard.eval.scoring.options import ScoringRequest, model_options, resume_command, run_options, take
from tuneyard.eval.scoring.pipeline import score_opened
from tuneyard.eval.scoring.task import Figure

ALONE = {
    "--rescore": "prompts models:",
    "--shots": "adds no model:",
    "--think": "prompts without it;",  # it changes how a model is opened, and some commands refuse it
}
COMMAND = "eval.suite"
COMMANDS = ("nli", "qa", "text", "dialogue", "cmmlu", "code", "defect", "tools")
CAPTION = "All steps"
Found = dict[str, dict[str, dict[str, Figure]]]  # by step, then by figure, then by model


@cli_command(
    "suite",
    "tuneyard eval suite eval/suites/toolkit.yaml --model models/demo-base --skip cmmlu "
    "--limit 1 --out results/suite",
    "tuneyard eval suite eval/suites/toolkit.yaml --model models/demo-base --adapter demo-rte "
    "--skip cmmlu --skip talks --limit 1 --out results/suite-of-rte",
)
@click.argument("suite", type=click.Path(path_type=Path), metavar="SUITE.yaml")
@model_options
@click.option("--skip", multiple=True, metavar="STEP", help="Leave this step out. Repeatable.")
@run_options
@lang_option
@resumed_by(lambda: resume_command(COMMAND))
def cli(suite: Path, skip: tuple[str, ...], **given: Any) -> None:
    """Score a base model and adapters with all commands that a suite's file names.

    What is wrong with any step is said before a model is loaded.
    """
    steps = read_steps(suite, {*given, "lang"} - {"limit"}, skip)
    shared = {**given, "by": COMMAND}
    request = take(given)
    for folder in (request.out, *(request.out / step.name for step in steps)):
        check_new(folder, COMMAND, resume=request.resume, force=request.force)
    plans = {step.name: step.prepare(shared) for step in steps}
    opened = open_models(request)
    with suite_run(request.out, COMMAND, [*plans], first=shards.first()):
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
        whole = replace(whole, comparison=alone)
        tables = {tr(CAPTION): table}
        compare.write(whole, request.out, facts, tables)
        title = tr("Suite {name}", name=request.out.name)
        page = report.render(whole, title, module=COMMAND, tables=tables)
        report.write(page, request.out / "report.html")
    else:
        write_text(request.out / TABLE, grid(table) + "\n")
        write_json(request.out / TABLE_JSON, facts)
        click.echo(f"\n{grid(table)}")


def steps_table(found: Found, models: Sequence[str]) -> Table:
    """Return a row for each figure of each step (one where it has none) and a column for each model."""
    rows = []
    for step, figures in found.items():
        if not figures:
            nothing = tr("nothing to measure in the answers")
            rows.append([f"{step}: {nothing}", "0", "", *[NONE for _ in models]])
        for name, by_model in figures.items():
            first = next(iter(by_model.values()))
            majority = "" if first.majority is None else percent(first.majority)
            cells = [_cell(by_model[model]) if model in by_model else NONE for model in models]
            rows.append([f"{step}: {name}", f"{first.n:,}", majority, *cells])
    header = [tr("figure (95 % interval)"), "n", tr("majority-class baseline"), *models]
    return Table(header, rows)


def _cell(one: Figure) -> str:
    low, high = one.ci95
    if one.share:
        return interval((one.value, low, high))
    return f"{one.value:.4g} ({low:.4g}–{high:.4g})"


@dataclass(frozen=True, slots=True)
class Step:
    """A step's name, its place in the file, its command and the options that are its own."""

    name: str
    place: str
    command: ScoringCommand
    options: Mapping[str, Any]

    def prepare(self, shared: Mapping[str, Any]) -> Prepared:
        """Return what is asked, with the suite's options and this step's; errors name the place."""
        limit = shared["limit"] or self.options["limit"]
        given = {**self.options, **shared, "limit": limit, "out": shared["out"] / self.name}
        try:
            return self.command.prepare(given)
        except TuneyardError as error:
            raise type(error)(
                f"{self.place}: {error}; change the step, or leave it out: --skip {self.name}"
            ) from error


def read_steps(path: Path, shared: Iterable[str], skipped: Iterable[str]) -> list[Step]:
    """Return a suite's steps but the `skipped`; `ContentError` names what is wrong, `shared` options too."""
    path = bundled(path)
    read = read_yaml(path, "suite")
    if not isinstance(read.value, dict) or not all(isinstance(name, str) for name in read.value):
        raise ContentError(
            f"{path}: found {show_value(read.value)}, expected the name of each step above its options"
        )
    for name in skipped:
        if name not in read.value:
            raise RequestError(f"--skip {name}: {path} has the steps {', '.join(read.value)}")
    steps: list[Step] = []
    wrong: list[str] = []
    for name, options in read.value.items():
        place = f"{path}:{read.lines[name]}: {name}"
        try:
            step = _step(name, place, options, path.parent, frozenset(shared))
            steps += [step] if name not in skipped else []
        except ContentError as error:
            wrong.append(str(error))
    if wrong or not steps:
        raise ContentError("\n".join(wrong) or f"{path}: no step is left")
    return steps


def _step(name: str, place: str, options: object, beside: Path, shared: frozenset[str]) -> Step:
    if not names_folder(name):
        raise ContentError(f"{place}: expected a name that can name a folder")
    if not isinstance(options, dict) or options.get("command") not in COMMANDS:
        found = show_value(options.get("command") if isinstance(options, dict) else options)
        raise ContentError(f"{place}: command: found {found}, expected one of {', '.join(COMMANDS)}")
    command: ScoringCommand = importlib.import_module(f"tuneyard.eval.{options['command']}").cli
    try:
        arguments = list(_arguments(command, options, beside, shared))
        # what every command requires stands on the suite's command line
        with command.make_context(name, ["--model", "-", "--out", "-", *arguments]) as context:
            return Step(name, place, command, context.params)
    except (click.UsageError, ContentError) as error:
        told = error.format_message() if isinstance(error, click.UsageError) else error
        raise ContentError(f"{place}: {told}") from error


def _arguments(
    command: click.Command, options: Mapping[object, object], beside: Path, shared: frozenset[str]
) -> Iterator[str]:
    """Yield a step's options as a command line has them; `data` may lie beside the suite's file."""
    known = {name: option for option in command.params for name in (*option.opts, *option.secondary_opts)}
    for key, value in options.items():
        name = f"--{str(key).replace('_', '-')}"
        option = known.get(name)
        if key == "command":
            continue
        if option is None:
            hint = nearest(name, known) or f"see tuneyard eval {options['command']} --help"
            raise ContentError(f"{key}: {options['command']} has no such option; {hint}")
        if name in ALONE and (name != "--shots" or "--shots-from" in known):
            raise ContentError(f"{name[2:]}: a suite {ALONE[name]} run eval.{options['command']} by itself")
        if option.name in shared:
            raise ContentError(f"{key}: the same for all steps: give it on the command line")
        if getattr(option, "is_flag", False):
            if not isinstance(value, bool):
                raise ContentError(f"{key}: found {show_value(value)}, expected true or false")
            yield from option.opts[:1] if value else option.secondary_opts[:1]
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, bool) or not isinstance(one, str | int | float):
                raise ContentError(f"{key}: found {show_value(one)}, expected a text or a number")
            there = name == "--data" and (beside / str(one)).exists()
            yield f"{name}={beside / str(one) if there else one}"


if __name__ == "__main__":
    run(cli)
