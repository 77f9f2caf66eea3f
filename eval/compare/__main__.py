"""tuneyard eval compare results/a [results/b …] --out DIR

Judge scored runs on the same rows: accuracies with intervals, every model against the base (paired,
p and interval of all together), the minimum detectable effect, and a verdict. Writes tables, plots, and a
page that needs no network and no other file. Needs no model and no torch. docs/eval-compare.md explains the
figures, docs/eval-report.md the page.
"""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneyard.core.cli.main import cli_command, is_quiet, next_step, typed_command, up_to_date
from tuneyard.core.cli.run import run_command
from tuneyard.core.drawing.plots import check_replaceable
from tuneyard.core.errors import RequestError
from tuneyard.core.execution.state import CURRENT, Input, State
from tuneyard.core.files import json_text
from tuneyard.core.language.message import _, joined, tr
from tuneyard.core.language.messages import say, warn
from tuneyard.core.training.metrics import ACCURACY
from tuneyard.eval.compare.folder import finish_comparison, publish_comparison, refuse_links
from tuneyard.eval.compare.request import MOST_ERRORS, CompareRequest
from tuneyard.eval.runs.results import (
    CHANGED,
    COMPARED,
    NO_INPUTS,
    PAGE,
    PLOTS,
    TABLE,
    TABLE_JSON,
    CommandResult,
    check_files,
    replaced_files,
)

if TYPE_CHECKING:
    from tuneyard.eval.judge.ask import ComparedRuns
    from tuneyard.eval.judge.conclusions import Question
    from tuneyard.eval.report.html import Page
    from tuneyard.eval.runs.find import ScoredRunSource
    from tuneyard.eval.runs.sweeps import TrainedSweep

SMALL_MARGIN = 0.5  # points: less is likelier meant as a share
PLOT_SUFFIX = ".png"


@cli_command(
    "compare",
    "tuneyard eval compare results/demo --out build/verdict",
    "tuneyard eval compare one=results/demo/held-out/base two=results/demo/held-out/rte --out build/named",
)
@click.argument("results", nargs=-1, required=True, metavar="[NAME=]RESULTS…")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder for tables, plots and the page."
)
@click.option(
    "--decide-on", default="", metavar="DATASET", help="Dataset of the verdict.  [default: the mean]"
)
@click.option(
    "--metric",
    default=ACCURACY.name,
    metavar="NAME",
    help="Compare this figure of each example (eval_loss, rougeL, bleu, token_f1, …) instead of accuracy.",
)
@click.option(
    "--choose-on",
    type=click.Choice(["half"]),
    help="Choose the best model on half of the examples, and compare it with the base on the other half.",
)
@click.option(
    "--by",
    default="",
    metavar="FIELD",
    help="Compare on the rows of each value of this field, too: type, subtype, any field of the rows.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 100, min_open=True),
    metavar="POINTS",
    help="Report which models are shown to lose no more than this to the most accurate one.",
)
@click.option(
    "--replicates",
    multiple=True,
    metavar="NAME=MODEL,MODEL…",
    help="Models of one recipe with different seeds (best five): they are one candidate, compared by their "
    "mean. Repeatable.",
)
@click.option(
    "--errors",
    type=click.IntRange(0),
    default=MOST_ERRORS,
    show_default=True,
    metavar="N",
    help="The page shows at most N incorrect examples, evenly spread.",
)
@click.option(
    "--title", default="", metavar="TEXT", help="Title of the report.  [default: Report on RESULTS]"
)
@click.option("--force", is_flag=True, help="Replace a comparison of other runs in --out.")
def cli(**options: Any) -> None:
    """Compare models on the examples that all of them answered; write tables, plots and an HTML page.

    RESULTS is a folder that `tuneyard eval nli` or another scoring command wrote (OUT, OUT/MODEL or
    OUT/MODEL/SET), or results of another tool: LLaMA-Factory, lm-evaluation-harness, inspect, lighteval,
    EvalScope, OpenCompass, promptfoo, or JSON Lines, CSV or Parquet with id, gold and prediction.
    The folder of a `tuneyard recipe sweep --eval` is compared by its settings, whose seeds are replicates.
    NAME is MODEL or MODEL/SET, for results without a name. The base is the model `base`, otherwise the first.
    """
    compared = compare(CompareRequest(**options, command_line=typed_command("eval.compare")))
    if compared.is_current:
        up_to_date(compared.place)
    else:
        next_step(None, compared.next_command)


def sources_of(request: CompareRequest) -> "tuple[list[ScoredRunSource], TrainedSweep | None]":
    """The results of a request. Of a `recipe sweep` they are those of its settings, with their replicates."""
    from tuneyard.eval.runs.find import parse_source
    from tuneyard.eval.runs.sweeps import read_trained_sweep

    sources = list(map(parse_source, request.results))
    if len(set(sources)) < len(sources):
        raise RequestError(_("a result is named twice: name each once, the base and another run"))
    trained = None
    if len(sources) == 1:
        trained = read_trained_sweep(sources[0].path)
    if trained is not None:
        sources = list(map(parse_source, trained.sources))
    return sources, trained


def state(request: CompareRequest) -> State:
    """How far the comparison of a request is. Nothing is written."""
    from tuneyard.eval.compare.state import comparison_inputs, comparison_state

    sources, _trained = sources_of(request)
    return comparison_state(request.out, comparison_inputs(request, sources))


def compare(request: CompareRequest) -> CommandResult:
    """Compare the runs of a request, print the decision, and write the files. Unchanged inputs write nothing.

    `RequestError` for a comparison of other runs in OUT, without `force`.
    """
    from tuneyard.eval.compare.state import comparison_inputs, comparison_state
    from tuneyard.eval.judge.ask import other_metrics
    from tuneyard.eval.judge.questions.choice import choose_on_half
    from tuneyard.eval.judge.questions.slices import by_slices
    from tuneyard.eval.report.findings import print_finding
    from tuneyard.eval.report.html import Page
    from tuneyard.eval.report.setup import next_command

    metric, choose_on, by, margin = request.metric, request.choose_on, request.by, request.margin
    replicates, out, title = request.replicates, request.out, request.title
    is_accuracy = metric == ACCURACY.name
    sources, trained = sources_of(request)
    if trained is not None:
        title = title or tr("Sweep {name}", name=Path(request.results[0]).name)
        replicates = (*replicates, *trained.replicates)
        if trained.chooses:
            choose_on = "half"
        for finding in trained.findings:
            print_finding(finding)
    recipes = parse_replicates(replicates)
    if margin is not None and margin < SMALL_MARGIN:
        warn(
            _(
                "--margin is in points: {margin:g} is {margin:g} points, 5 points are --margin 5",
                margin=margin,
            )
        )
    if not is_accuracy and (by or margin is not None):
        raise RequestError(_("--margin and --by need accuracy. Leave them out, or leave out --metric"))
    if recipes and by:
        raise RequestError(_("--by is about single models. Leave it out, or --replicates"))
    questions: list[Question] = []
    if choose_on:
        questions.append(partial(choose_on_half, metric=metric))
    if by:
        questions.append(partial(by_slices, by=by))
    if is_accuracy:
        questions.append(other_metrics)
    finish_comparison(out)
    check_files(out, COMPARED, PLOTS)
    inputs = comparison_inputs(request, sources)
    if comparison_state(out, inputs) == CURRENT and not request.force:
        return CommandResult(out / TABLE, is_current=True)
    compared = compare_results(
        sources,
        questions,
        metric=metric,
        decide_on=request.decide_on,
        margin=margin and margin / 100,
        recipes=recipes,
    )
    words = next_command(compared)
    made_by = request.command_line.text(without=("--force",))
    page = Page(title or title_of(sources), request.errors, made_by, shlex.join(words))
    write(compared, out, page, {}, force=request.force, inputs=inputs)
    return CommandResult(out / TABLE, words)


def parse_replicates(texts: Sequence[str]) -> dict[str, list[str]]:
    """Models of each recipe from `NAME=MODEL,MODEL,…`; `RequestError` for fewer than two."""
    recipes: dict[str, list[str]] = {}
    recipe_of: dict[str, str] = {}
    for text in texts:
        name, _unused, listed = text.partition("=")
        models = [model.strip() for model in listed.split(",") if model.strip()]
        if not name or name in recipes or len(set(models)) < max(2, len(models)):
            raise RequestError(
                _(
                    "--replicates {text}: expected NAME=MODEL,MODEL,… with two different models or more, "
                    "each name once",
                    text=text,
                )
            )
        for model in models:
            if model in recipe_of:
                raise RequestError(
                    _(
                        "--replicates {name}: {model} is already one of {other}",
                        name=name,
                        model=model,
                        other=recipe_of[model],
                    )
                )
            recipe_of[model] = name
        recipes[name] = models
    return recipes


def title_of(sources: "Sequence[ScoredRunSource]") -> str:
    """A title of one line: the first models by the names that sources give them, otherwise their places."""
    from tuneyard.eval.report.setup import argument
    from tuneyard.eval.report.verdict import first_few

    names = [source.model or argument(str(source.path)) for source in sources]
    return tr("Report on {names}", names=first_few(list(dict.fromkeys(names))))


def compare_results(
    sources: "Sequence[ScoredRunSource]",
    questions: "Sequence[Question]" = (),
    *,
    metric: str = ACCURACY.name,
    **how: Any,
) -> "ComparedRuns":
    """Read the runs of the sources once, print what reading chose, and compare them.

    `how` goes to `compare_runs`.
    """
    from tuneyard.eval.judge.ask import compare_runs
    from tuneyard.eval.report.findings import print_finding
    from tuneyard.eval.runs.find import read_scored_runs
    from tuneyard.eval.runs.findings import Note

    runs, findings = read_scored_runs(sources, metric)
    warnings = []
    for finding in findings:
        if isinstance(finding, Note):
            print_finding(finding)
        else:
            warnings.append(finding)
    return compare_runs(runs, questions, warnings, metric, **how)


def write(
    compared: "ComparedRuns",
    out: Path,
    page: "Page",
    facts: Mapping[str, object],
    *,
    force: bool = False,
    inputs: Mapping[str, Input] = NO_INPUTS,
) -> None:
    """Publish table.md and table.json (with `facts`) in `out`; print the decision, one table, the warnings.

    A comparison of accuracies also gets plots, changed.jsonl and the page. A comparison of the same runs in
    `out` is replaced with its plots, one of other runs if `force`. `RequestError` before the first file if a
    plot would replace a file that Tuneyard did not draw.
    """
    from tuneyard.eval.report.findings import print_finding
    from tuneyard.eval.report.tables import summary

    replaced_files(out, [run.source for run in compared.run_list], force=force)
    files = lay_out(compared, page, facts, inputs)
    refuse_links(out, files)
    for name in files:
        if name.endswith(PLOT_SUFFIX):
            check_replaceable(out / name)
    publish_comparison(out, files)
    say(summary(compared))
    for finding in compared.findings:
        print_finding(finding)
    if not is_quiet():
        say(_("The rest is in {out}: {files}", out=out, files=joined(files)), to_stderr=True)


def lay_out(
    compared: "ComparedRuns",
    page: "Page",
    facts: Mapping[str, object],
    inputs: Mapping[str, Input] = NO_INPUTS,
) -> dict[str, bytes]:
    """Every file of a comparison by its path below OUT."""
    from tuneyard.core.drawing.plots import list_of
    from tuneyard.eval.report.html import render
    from tuneyard.eval.report.plots import draw_plots
    from tuneyard.eval.report.tables import document, text_of

    files: dict[str, bytes] = {}
    plots = []
    if compared.comparison.metric.counts_correct:
        plots = draw_plots(compared.comparison, compared.runs)
        for plot in plots:
            files[plot.name] = plot.png
            if plot.numbered:
                files[str(Path(plot.name).with_suffix(".txt"))] = list_of(plot.numbered).encode()
        files[PAGE] = render(compared, page, plots).encode()
        files[CHANGED] = changed_examples(compared).encode()
    files[TABLE] = text_of(compared, page.title, page.tables).encode()
    outputs = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    table = {**facts, **document(compared, [plot.name for plot in plots], inputs, outputs)}
    files[TABLE_JSON] = json_text(table).encode()
    return files


def changed_examples(compared: "ComparedRuns") -> str:
    """The examples that each model fixed, or regressed on, against the base, as JSON Lines."""
    lines = []
    for dataset, by_model in compared.runs.items():
        base = by_model.get(compared.comparison.base)
        if base is None:
            continue
        for model, scored in by_model.items():
            for place, row in enumerate(scored.rows):
                if scored.correct[place] == base.correct[place]:
                    continue
                change = "regressed"
                if scored.correct[place]:
                    change = "fixed"
                example = {
                    "dataset": dataset,
                    "model": model,
                    "change": change,
                    "row": row,
                    "expected": scored.gold[place],
                    "predicted": scored.predicted[place],
                    "base": base.predicted[place],
                }
                lines.append(json.dumps(example, ensure_ascii=False) + "\n")
    return "".join(lines)


if __name__ == "__main__":
    run_command(cli)
