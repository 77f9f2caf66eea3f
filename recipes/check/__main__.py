"""tuneyard recipe check R.yaml … [key=value …]: report every problem of a recipe without a GPU.

Our rules run first. Then LLaMA-Factory answers in a subprocess. Its import takes about 10 s, once for all
recipes of the command.
"""

import shlex
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import click

from tuneyard.core.cli.main import cli_command, next_step, same_options
from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import SHOWN, ContentError, Problem, RequestError, by_code
from tuneyard.core.errors.problem_codes import guide
from tuneyard.core.language.message import _, joined, message_of, ngettext, typed
from tuneyard.core.language.messages import print_json, say
from tuneyard.core.text.secrets import public_words
from tuneyard.recipes.checking.checked import CheckRequest, check_recipe
from tuneyard.recipes.llamafactory.questions import code_option
from tuneyard.recipes.machine.hardware import machine, target_option
from tuneyard.recipes.recipe import find_recipe, read_recipe
from tuneyard.recipes.recipe.model_source import may_be_here
from tuneyard.recipes.recipe.schema import known_keys


@cli_command(
    "check",
    "tuneyard recipe check recipes/demo-rte.yaml",
    "tuneyard recipe check --quick recipes/demo-rte.yaml learning_rate=2.0e-4",
)
@click.argument("arguments", nargs=-1, required=True, metavar="RECIPE... [KEY=VALUE]...")
@click.option("--model", help="Take tokenizer and config from this model folder (for a hub id, offline).")
@target_option("Target machine. Problems of this machine are notes, unless you choose `this`.")
@code_option
@click.option("--quick", is_flag=True, help="Only what is found at once, without asking LLaMA-Factory.")
@click.option("--all", "show_all", is_flag=True, help="Show every problem, not the first 20.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each recipe.")
def command(
    arguments: tuple[str, ...],
    model: str | None,
    trains_on: str,
    runs_model_code: bool,
    quick: bool,
    **output: bool,
) -> None:
    """Report every problem in recipes, before you reserve a GPU."""
    overrides = tuple(argument for argument in arguments if "=" in argument)
    paths = [Path(argument) for argument in arguments if "=" not in argument]
    if not paths:
        raise RequestError(
            _("no recipe named; expected RECIPE… KEY=VALUE…, as in recipes/rte.yaml lora_rank=4")
        )
    for path in paths:  # before the first recipe takes its time
        if str(path) in known_keys() and not path.exists():
            raise RequestError(
                _("'{path}': expected a recipe, or a setting as KEY=VALUE: {path}=…", path=path)
            )
        find_recipe(path)
    target = machine(trains_on)
    if model is not None:
        from tuneyard.core.weights.adapter_files import refuse_adapter

        refuse_adapter(Path(model))
        if quick:
            raise RequestError(_("--model is for LLaMA-Factory, which --quick leaves out: give one of them"))
    failed = 0
    for path in paths:
        try:
            request = CheckRequest(read_recipe(path, overrides), target, model, quick, runs_model_code)
            failed += _print_check(request, **output)
        except ContentError as error:
            say(message_of(error), to_stderr=True)
            failed += 1
    if failed:
        raise ContentError(
            _("{failed} of {all} recipes cannot be trained as they are", failed=failed, all=len(paths))
        )
    next_step(None, _after_check(CheckRequest(read_recipe(paths[0], overrides), target, model)))


def _after_check(request: CheckRequest) -> str:
    """The next command: a plan for GPUs, or the training. A plan needs the model's config and tokenizer."""
    recipe = request.recipe
    words = [str(recipe.path), *public_words(recipe.overrides)]
    if not request.target.gpus:  # plan estimates GPUs
        return typed(["tuneyard", "recipe", "train", *words])
    options_of_plan = same_options("--model", "--for", "--trust-remote-code")
    plan = typed(["tuneyard", "recipe", "plan", *words, *options_of_plan])
    model = str(recipe.settings.get("model_name_or_path"))
    if request.model is None and not may_be_here(model):
        fetch = shlex.join(["hf", "download", model, "--include", "*.json"])
        return f"{fetch} && {plan}"
    return plan


def _print_check(request: CheckRequest, *, show_all: bool, as_json: bool) -> bool:
    """Check a recipe, and print its problems as they appear. True if it has errors."""
    left_to_show = sys.maxsize if show_all else SHOWN

    def show(problems: list[Problem]) -> None:
        nonlocal left_to_show
        if not as_json:
            left_to_show -= _show(problems, left_to_show)

    report = check_recipe(request, show)
    checked, path = report.checked, request.recipe.path
    if as_json:
        problems = [asdict(problem) for problem in report.problems]
        print_json(
            {
                "recipe": str(path),
                "problems": problems,
                "not_checked": report.not_checked,
                "facts": asdict(checked.answer),
            }
        )
        return report.failed
    for line in report.not_checked:
        say(_("not checked: {what}", what=line))
    for line in guide(problem.code for problem in report.problems):
        say(line)
    verdict = _verdict(report.problems)
    if checked.schedule.rows:
        verdict = _("{verdict}; {schedule}", verdict=verdict, schedule=checked.schedule.line())
    say(_("{path}: {verdict}", path=path, verdict=verdict))
    return report.failed


def _show(problems: list[Problem], limit: int) -> int:
    """Print the first problems and the number of the others. The result is how many were printed."""
    first_problems = problems[:limit]
    for problem in first_problems:
        say(problem.line())
    more = len(problems) - len(first_problems)
    if more:
        say(_("… {number} more (--all shows every one)", number=more))
    return len(first_problems)


def _verdict(problems: list[Problem]) -> str:
    if not problems:
        return _("nothing wrong")
    of_severity = Counter(problem.code[0] for problem in problems)
    errors, warnings, notes = (of_severity[letter] for letter in "EWN")
    totals = [
        ngettext("{number:,} error", "{number:,} errors", errors, number=errors),
        ngettext("{number:,} warning", "{number:,} warnings", warnings, number=warnings),
    ]
    if notes:
        totals.append(ngettext("{number:,} note", "{number:,} notes", notes, number=notes))
    codes = Counter(problem.code for problem in problems)
    return _("{totals} ({by_code})", totals=joined(totals), by_code=by_code(codes))


if __name__ == "__main__":
    run_command(command)
