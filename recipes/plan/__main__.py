"""tuneyard recipe plan R.yaml [key=value …]: steps, tokens, memory, time, cost and disk of a training."""

from dataclasses import asdict
from pathlib import Path

import click

from tuneyard.core.cli.main import cli_command, next_step, same_options
from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import ContentError, ProblemsError, RequestError
from tuneyard.core.language.message import _, joined
from tuneyard.core.language.messages import print_json, say
from tuneyard.recipes.llamafactory.questions import code_option
from tuneyard.recipes.planning.lines import plan_lines, table_lines
from tuneyard.recipes.planning.training_plan import ExpectedRows, PlanRequest, make_plans, read_offer
from tuneyard.recipes.recipe import MissingDataProblem, read_recipe

MOST_ROWS = 10**12
MOST_TOKENS = 10**7  # of a row; the longest contexts have a tenth of it


@cli_command(
    "plan",
    "tuneyard recipe plan recipes/demo-rte.yaml",
    "tuneyard recipe plan recipes/demo-rte.yaml --for A100-80@1.9 --for 4xH100@10 --rows 50000 --tokens 90",
)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--for",
    "machines",
    multiple=True,
    default=["gpu"],
    metavar="gpu|this|4xA100-80[@PRICE]",
    help="Machine (repeatable, for a table), with its price an hour if given. [default: gpu, an A100-80]",
)
@click.option(
    "--rows",
    type=click.IntRange(1, MOST_ROWS),
    metavar="N",
    help="Plan for N rows, before there is data. Needs --tokens.",
)
@click.option(
    "--tokens",
    type=click.IntRange(1, MOST_TOKENS),
    metavar="N",
    help="Mean tokens of one of these rows: prompt and answer, or one side of a pair.",
)
@click.option("--model", help="Take tokenizer and config from this model folder (for a hub id, offline).")
@code_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each machine.")
def command(
    recipe: Path,
    overrides: tuple[str, ...],
    machines: tuple[str, ...],
    rows: int | None,
    tokens: int | None,
    model: str | None,
    runs_model_code: bool,
    as_json: bool,
) -> None:
    """Estimate steps, tokens, memory, time, cost and disk of a training."""
    expected = None
    if rows is not None and tokens is not None:
        expected = ExpectedRows(rows, tokens)
    elif rows is not None or tokens is not None:
        raise RequestError(
            _("--rows and --tokens belong together: --rows 50000 --tokens 400 (tokens of a row)")
        )
    offers = [read_offer(text) for text in machines]
    try:
        request = PlanRequest(read_recipe(recipe, overrides), offers, model, expected, runs_model_code)
        plans = make_plans(request)
    except ProblemsError as error:
        if expected is None and all(isinstance(each, MissingDataProblem) for each in error.problems):
            hint = _("to plan before there is data, add --rows N --tokens N (mean tokens of a row)")
            raise ContentError(_("{problems}\n{hint}", problems=error, hint=hint)) from error
        raise
    if as_json:
        for plan in plans:
            print_json(asdict(plan))
    elif len(plans) == 1:
        say(joined(plan_lines(plans[0]), "\n"))
    else:
        say(joined(table_lines(plans), "\n"))
    following = ["train", recipe, *overrides]
    if expected is not None:  # check names the datasets that are missing
        following = ["check", recipe, *overrides, *same_options("--model", "--trust-remote-code")]
    next_step(None, ["tuneyard", "recipe", *following])


if __name__ == "__main__":
    run_command(command)
