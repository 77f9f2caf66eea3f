"""tuneyard recipe check R.yaml … [key=value …]: report every problem of a recipe without a GPU.

Our rules run first. Then LLaMA-Factory answers in a subprocess. Its import takes about 10 s, once for all
recipes of the command.
"""

import shlex
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from tuneyard.core.cli.main import cli_command, next_step, same_options
from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import SHOWN, ContentError, Problem, RequestError, by_code
from tuneyard.core.errors.problem_codes import guide
from tuneyard.core.language.message import _, joined, message_of, ngettext, typed
from tuneyard.core.language.messages import print_json, say
from tuneyard.core.text.secrets import public_words
from tuneyard.recipes.checking.checked import ask_check, not_checked, quick_check
from tuneyard.recipes.llamafactory.client import LlamaFactory, code_option
from tuneyard.recipes.machine.hardware import Machine, machine, target_option
from tuneyard.recipes.recipe import Recipe, find_recipe, read_recipe
from tuneyard.recipes.recipe.model_source import may_be_here
from tuneyard.recipes.recipe.schema import known_keys


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """The options of `recipe check`: key=value over the recipes, model folder, machine, and the output."""

    overrides: tuple[str, ...]
    model: str | None
    target: Machine
    quick: bool
    show_all: bool
    as_json: bool


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
    options = CheckOptions(overrides, model, machine(trains_on), **output)
    if model is not None:
        from tuneyard.core.weights.adapter_files import refuse_adapter

        refuse_adapter(Path(model))
        if options.quick:
            raise RequestError(_("--model is for LLaMA-Factory, which --quick leaves out: give one of them"))
    llamafactory = LlamaFactory(runs_model_code=runs_model_code)
    failed = 0
    for path in paths:
        try:
            recipe = read_recipe(path, overrides)
            failed += check(llamafactory, recipe, options)
        except ContentError as error:
            say(message_of(error), to_stderr=True)
            failed += 1
    if failed:
        raise ContentError(
            _("{failed} of {all} recipes cannot be trained as they are", failed=failed, all=len(paths))
        )
    next_step(None, _after_check(paths[0], options))


def _after_check(path: Path, options: CheckOptions) -> str:
    """The next command: a plan for GPUs, or the training. A plan needs the model's config and tokenizer."""
    words = [str(path), *public_words(options.overrides)]
    if not options.target.gpus:  # plan estimates GPUs
        return typed(["tuneyard", "recipe", "train", *words])
    options_of_plan = same_options("--model", "--for", "--trust-remote-code")
    plan = typed(["tuneyard", "recipe", "plan", *words, *options_of_plan])
    model = str(read_recipe(path, options.overrides).settings.get("model_name_or_path"))
    if options.model is None and not may_be_here(model):
        fetch = shlex.join(["hf", "download", model, "--include", "*.json"])
        return f"{fetch} && {plan}"
    return plan


def check(llamafactory: LlamaFactory, recipe: Recipe, options: CheckOptions) -> bool:
    """Print the problems of one recipe as they appear. True if it has errors."""
    model, as_json = options.model, options.as_json
    checked = quick_check(recipe, options.target)
    problems = checked.problems
    left_to_show = sys.maxsize if options.show_all else SHOWN
    if not as_json:
        left_to_show -= _show(problems, left_to_show)
    if not options.quick:
        checked = ask_check(llamafactory, checked, model)
        reason = checked.answer.template_error or checked.answer.model.error
        if model is not None and reason:
            fix = _("name a folder with config.json and the tokenizer's files, or a model in the hub's cache")
            raise RequestError(_("--model {model}: {reason}; {hint}", model=model, reason=reason, hint=fix))
        if not as_json:
            _show(checked.problems, left_to_show)
        problems = [*problems, *checked.problems]
    model_name = model or str(recipe.settings.get("model_name_or_path"))
    unchecked = list(not_checked(checked, model_name))
    if as_json:
        report = {"recipe": str(recipe.path), "problems": [asdict(problem) for problem in problems]}
        print_json({**report, "not_checked": unchecked, "facts": asdict(checked.answer)})
    else:
        for line in unchecked:
            say(_("not checked: {what}", what=line))
        for line in guide(problem.code for problem in problems):
            say(line)
        verdict = _verdict(problems)
        if checked.schedule.rows:
            verdict = _("{verdict}; {schedule}", verdict=verdict, schedule=checked.schedule.line())
        say(_("{path}: {verdict}", path=recipe.path, verdict=verdict))
    return any(problem.is_error for problem in problems)


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
