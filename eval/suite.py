"""tuneyard eval suite eval/suites/toolkit.yaml --model models/demo-base --adapter rte --out results/toolkit

Runs several commands over models that are opened once, and collects their figures in one table and one page.
Writes OUT/<step>/<model>/<dataset>/… as each command does. docs/eval-suite.md explains suites.
"""

import contextlib
import math
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneyard.core.cli.main import CommandLine, cli_command, explicit_options, typed_command
from tuneyard.core.cli.run import run_command
from tuneyard.core.documents import read_yaml
from tuneyard.core.drawing.plots import PLOTTING
from tuneyard.core.errors import (
    ContentError,
    RequestError,
    TuneyardError,
    import_early,
    resumed_by,
    unexpected,
    wrong_value,
)
from tuneyard.core.execution.state import CURRENT, Input, State
from tuneyard.core.files import bundled, names_folder, write_json, write_text
from tuneyard.core.language.message import _, joined, message_of, relative, tr
from tuneyard.core.language.messages import say
from tuneyard.core.language.number_format import NONE, Table, grid, percent
from tuneyard.core.records.record import read_record
from tuneyard.core.records.results_record import ResultsRecord
from tuneyard.core.training.metrics import ACCURACY, UNKNOWN
from tuneyard.eval.__main__ import cli as eval_commands
from tuneyard.eval.compare import __main__ as compare
from tuneyard.eval.compare.request import MOST_ERRORS
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.runs.results import (
    RESULTS,
    TABLE,
    TABLE_JSON,
    CommandResult,
    Results,
    begin_suite_run,
    check_folder,
    end_run,
    replaced_files,
    undone_without_predictions,
)
from tuneyard.eval.scoring.command import ScoringCommand, end_scoring
from tuneyard.eval.scoring.evaluation import Evaluation, NextStep
from tuneyard.eval.scoring.options import PATH, dataset_dir, model_options, run_options, with_options
from tuneyard.eval.scoring.request import (
    OptionValues,
    ScoringRequest,
    request_of,
    resume_hint,
    resumed,
)

if TYPE_CHECKING:
    from tuneyard.core.execution import Executor
    from tuneyard.eval.scoring.candidates import Opened

ALONE = ("--repeat", "--rescore", "--shots", "--think")  # they change which models are opened, and how
COMMAND = "eval.suite"
CONTEXT = click.Context(eval_commands)
CAPTION = _("All steps")
Figures = dict[str, dict[str, dict[str, Results]]]
"""Figures of results.json (`value`, `ci95`, `n`) by step, then by name, then by model."""


@cli_command(
    "suite",
    "tuneyard eval suite eval/suites/toolkit.yaml --model models/demo-base --skip cmmlu "
    "--limit 1 --out results/suite",
    "tuneyard eval suite eval/suites/toolkit.yaml --model models/demo-base --adapter demo-rte "
    "--skip cmmlu --skip talks --limit 1 --out results/suite-of-rte",
)
@click.argument("suite", type=PATH, metavar="SUITE.yaml")
@partial(with_options, model_options)
@dataset_dir
@click.option("--skip", multiple=True, metavar="STEP", help="Leave this step out. Repeatable.")
@partial(with_options, run_options)
def cli(suite: Path, skip: tuple[str, ...], **options: Any) -> None:
    """Score a base model and adapters with all commands that a suite's file names.

    Every step is checked and planned before the first one is scored.
    """
    command_line = typed_command(COMMAND)
    explicit = explicit_options(click.get_current_context())
    with resumed_by(lambda: resume_hint(command_line)):
        request = suite_request(read_steps(suite, skip), options, explicit, command_line)
        scored = score_suite(request)
    end_scoring(scored)


@dataclass(frozen=True, slots=True)
class SuiteRequest:
    """What a suite is asked for: the options that all steps share, and the request of each step."""

    scoring: ScoringRequest
    steps: Mapping["Step", ScoringRequest]


def suite_request(
    steps: Sequence["Step"],
    options: OptionValues,
    explicit: Mapping[str, str],
    command_line: CommandLine,
) -> SuiteRequest:
    """Give each step the options of all steps. `RequestError` and `ContentError` name the step's place."""
    scoring = request_of(options, explicit, command_line, by=COMMAND)
    return SuiteRequest(scoring, {step: step.request(options, explicit, command_line) for step in steps})


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step's request, its evaluation and datasets, and what its results depend on."""

    request: ScoringRequest
    evaluation: Evaluation
    datasets: Sequence[EvalDataset]
    inputs: Mapping[str, Input]


def state(request: SuiteRequest) -> State:
    """How far a suite is. No model is loaded, and nothing is written."""
    return _state(request.scoring, _prepare(request))


def score_suite(request: SuiteRequest) -> CommandResult:
    """Score all steps, and write the tables over them. The models are opened once.

    `RequestError` for an OUT that is unfinished or stale, unless the request resumes or replaces it.
    """
    from tuneyard.eval.scoring.pipeline import workers_of
    from tuneyard.eval.scoring.state import refuse_existing

    scoring = request.scoring
    import_early(PLOTTING, "jinja2")
    prepared = _prepare(request)
    state = _state(scoring, prepared)
    if state == CURRENT and not scoring.force:
        return CommandResult(scoring.out / TABLE, is_current=True)
    refuse_existing(scoring, state)
    scoring = resumed(scoring)
    prepared = {name: replace(step, request=resumed(step.request)) for name, step in prepared.items()}
    with workers_of(scoring) as workers:
        models = score_steps(scoring, prepared, workers)
    return CommandResult(*report_steps(scoring, prepared, models))


def _prepare(request: SuiteRequest) -> dict[str, PlannedStep]:
    """Read the data of all steps. `RequestError` if a folder is not for them."""
    from tuneyard.eval.scoring.pipeline import workers_of
    from tuneyard.eval.scoring.state import scoring_inputs

    scoring = request.scoring
    for folder in (scoring.out, *(each.out for each in request.steps.values())):
        check_folder(folder, COMMAND, resume=scoring.resume, force=scoring.force)
    prepared: dict[str, PlannedStep] = {}
    for step, step_request in request.steps.items():
        with step.placed():
            evaluation, datasets = step.command.prepare(step_request)
        prepared[step.name] = PlannedStep(step_request, evaluation, datasets, {})
    workers_of(scoring)  # refuses a backend that needs none
    for step in request.steps:
        planned = prepared[step.name]
        inputs = scoring_inputs(planned.request, planned.evaluation, planned.datasets, step.command.flags)
        prepared[step.name] = replace(planned, inputs=inputs)
    return prepared


def _state(scoring: ScoringRequest, steps: Mapping[str, PlannedStep]) -> State:
    """The state of all steps together."""
    from tuneyard.eval.scoring.state import run_state, steps_state

    states = {}
    for name, step in steps.items():
        states[name] = run_state(step.request, step.inputs, step.evaluation.for_people)
    return steps_state(scoring.out, states)


def score_steps(
    request: ScoringRequest, steps: Mapping[str, PlannedStep], workers: "Executor | None"
) -> list[str]:
    """Open the models once, plan all steps and score them; return the names of the models."""
    from tuneyard.eval.scoring.candidates import open_models
    from tuneyard.eval.scoring.pipeline import carry_out
    from tuneyard.eval.scoring.plan import plan_scoring

    opened_by_use: dict[bool, Opened] = {}
    plans = {}
    for name, step in steps.items():
        chooses = request.backend_kind.is_server and step.evaluation.chooses  # a server gets token ids then
        if chooses not in opened_by_use:
            opened_by_use[chooses] = open_models(request, chooses=chooses, workers=workers)
        step_request = replace(step.request, day=request.day)  # of the prompts that all steps share
        opened = opened_by_use[chooses]
        plans[name] = plan_scoring(step_request, step.evaluation, step.datasets, opened, step.inputs)
    begin_suite_run(request.out, COMMAND, [*plans])
    with undone_without_predictions(request.out):
        for name in list(plans):
            plan = plans.pop(name)  # its prompts are not needed any more once it is scored
            say(_("\n{step}: {command}", step=name, command=plan.request.command))
            carry_out(plan)
    return [candidate.name for candidate in opened.candidates]  # the same names in each


def report_steps(
    request: ScoringRequest, steps: Mapping[str, PlannedStep], models: Sequence[str]
) -> NextStep:
    """Write table.md and table.json over all steps, and report.html if any step has an accuracy.

    The next command is then that of the comparison, if all steps recommend the same model.
    """
    from tuneyard.eval.report.html import Page
    from tuneyard.eval.report.setup import next_command
    from tuneyard.eval.runs.find import ScoredRunSource

    figures: Figures = {}
    judged: list[ScoredRunSource] = []
    for name, step in steps.items():
        figures[name] = {}
        for model in models:
            folder = step.request.out / model
            results = {}
            for each in step.datasets:
                results[each.name] = read_record(folder / each.name / RESULTS, ResultsRecord)
            of_model = step.evaluation.suite_figures(step.request.out, model, results)
            for label, figure in of_model.items():
                figures[name].setdefault(label, {})[model] = figure
            for dataset_name, result in results.items():
                if "accuracy" in result:
                    label = name
                    if len(results) > 1:
                        label = f"{name}/{dataset_name}"
                    judged.append(ScoredRunSource(folder / dataset_name, model, label))
    table = steps_table(figures, models)
    facts: dict[str, object] = {"steps": figures}
    if judged:
        compared = compare.compare_results(judged, has_mean=False)  # different tasks have no mean
        title = tr("Suite {name}", name=request.out.name)
        words = next_command(compared)
        made_by = request.command_line.text(without=("--resume", "--force"))
        page = Page(title, MOST_ERRORS, made_by, shlex.join(words), {tr(CAPTION): table})
        compare.write(compared, request.out, page, facts, force=True)  # the folder is the suite's
    else:
        words = ["tuneyard", "eval", "chat", *request.chat_options()]
        write_text(request.out / TABLE, grid(table) + "\n")
        write_json(request.out / TABLE_JSON, {"format": 2, **facts})
    compared_files = replaced_files(request.out, [], force=True)
    end_run(request.out, names=dict.fromkeys([TABLE, TABLE_JSON, *compared_files]))
    say(joined(["", grid(table)], "\n"))
    return request.out / TABLE, words


def steps_table(figures: Figures, models: Sequence[str]) -> Table:
    """Table with a row for each figure of each step and a column for each model.

    A step without figures has one row with a note.
    """
    rows = []
    for step, by_name in figures.items():
        if not by_name:
            nothing = tr("{step}: nothing to measure in the answers", step=step)
            rows.append([nothing, "0", "", *[NONE for _unused in models]])
        for name, by_model in by_name.items():
            first = next(iter(by_model.values()))
            majority = ""
            if "majority" in first:
                majority = percent(first["majority"])
            cells = [_cell(name, by_model.get(model)) for model in models]
            rows.append([f"{step}: {name}", f"{first['n']:,}", majority, *cells])
    header = [tr("figure (95 % interval)"), "n", tr("majority-class baseline"), *models]
    return Table(header, rows)


def _cell(name: str, figure: Results | None) -> str:
    if figure is None:
        return NONE
    metric = UNKNOWN
    last_word = name.replace(",", " ").split()[-1]  # after a dataset and a type
    if "accuracy" in figure or last_word == ACCURACY.name:
        metric = ACCURACY
    return metric.interval_text((figure["value"], *(figure["ci95"] or (-math.inf, math.inf))))


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """A step's name, its place in the file, its command, and the options that the file gives it."""

    name: str
    place: str
    command: ScoringCommand
    options: OptionValues
    explicit: Mapping[str, str]
    """The options that are written in the file, with their flags."""

    def request(
        self, shared: OptionValues, explicit: Mapping[str, str], command_line: CommandLine
    ) -> ScoringRequest:
        """The request of the step: the options of the file, and those that all steps share."""
        limit = shared["limit"] or self.options["limit"]
        options = {**self.options, **shared, "limit": limit, "out": shared["out"] / self.name}
        with self.placed():
            return self.command.request(options, {**self.explicit, **explicit}, command_line, COMMAND)

    @contextlib.contextmanager
    def placed(self) -> Iterator[None]:
        """Add the step's place, and how to leave it out, to an error inside the block."""
        try:
            yield
        except TuneyardError as error:
            raise type(error)(
                _(
                    "{place}: {error}; change the step, or leave it out: --skip {step}",
                    place=self.place,
                    error=error,
                    step=self.name,
                )
            ) from error


def read_steps(path: Path, skipped: Collection[str]) -> list[Step]:
    """Read a suite's steps without the `skipped` ones. `ContentError` lists every problem in the file."""
    path = bundled(path)
    read = read_yaml(path, _("suite (eval/suites/toolkit.yaml is bundled)"))
    if not isinstance(read.value, dict) or not all(isinstance(name, str) for name in read.value):
        raise wrong_value(path, read.value, _("the name of each step above its options"))
    if "model_name_or_path" in read.value:
        raise ContentError(
            _(
                "{path}: a training recipe, not a suite: tuneyard recipe check {recipe}",
                path=path,
                recipe=shlex.quote(relative(path)),
            )
        )
    for name in skipped:
        if name not in read.value:
            raise RequestError(
                _(
                    "--skip {name}: {path} has the steps {names}",
                    name=name,
                    path=path,
                    names=joined(read.value),
                )
            )
    steps: list[Step] = []
    problems: list[str] = []
    for name, options in read.value.items():
        place = f"{relative(path)}:{read.lines[name]}: {name}"
        try:
            step = _step(name, place, options, path.parent)
        except ContentError as error:
            problems.append(message_of(error))
            continue
        if name not in skipped:
            steps.append(step)
    if problems:
        raise ContentError(joined(problems, "\n"))
    if not steps:
        raise ContentError(_("{path}: no step is left", path=path))
    return steps


def _step(name: str, place: str, options: object, folder: Path) -> Step:
    if not names_folder(name):
        raise ContentError(_("{place}: expected a name that can name a folder", place=place))
    command_name = options.get("command") if isinstance(options, dict) else options
    command = _scoring_command(command_name)
    if command is None or not isinstance(options, dict):
        names = [each for each in eval_commands.list_commands(CONTEXT) if _scoring_command(each)]
        raise unexpected(place, "command", command_name, _("one of {names}", names=joined(names)))
    try:
        arguments = list(_arguments(command, options, folder))
        # the suite's command line has the options that every command requires
        with command.make_context(name, ["--model", "-", "--out", "-", *arguments]) as context:
            explicit = explicit_options(context)
            del explicit["model"], explicit["out"]
            return Step(name, place, command, context.params, explicit)
    except click.UsageError as error:
        raise ContentError(_("{place}: {error}", place=place, error=error.format_message())) from error
    except ContentError as error:
        raise ContentError(_("{place}: {error}", place=place, error=error)) from error


def _scoring_command(name: object) -> ScoringCommand | None:
    """A command of eval or of a plug-in by its name, None if it does not score."""
    command = None
    if isinstance(name, str):
        command = eval_commands.get_command(CONTEXT, name)
    return command if isinstance(command, ScoringCommand) else None


def _arguments(command: ScoringCommand, options: Mapping[object, object], folder: Path) -> Iterator[str]:
    """Yield a step's options as arguments of a command line. `data` may be relative to the suite's folder."""
    for key, value in options.items():
        flag = f"--{str(key).replace('_', '-')}"
        if key == "command":
            continue
        if flag in ALONE and (flag != "--shots" or command.has_shots):
            raise ContentError(
                _(
                    "{option}: not in a suite: run {command} by itself",
                    option=flag[2:],
                    command=command.module,
                )
            )
        if flag != "--limit" and any(flag in option.opts for option in cli.get_params(CONTEXT)):
            raise ContentError(_("{key}: the same for all steps: give it on the command line", key=key))
        for each in value if isinstance(value, list) else [value]:
            if each is None or each is True:
                yield flag
            elif each is False:
                for option in command.params:
                    if flag in option.opts:
                        yield from option.secondary_opts[:1]
            elif flag == "--data" and (folder / str(each)).exists():
                yield f"--data={folder / str(each)}"
            else:
                yield f"{flag}={each}"


if __name__ == "__main__":
    run_command(cli)
