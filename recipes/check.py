"""python -m recipes check R.yaml … [key=value …]: everything wrong with a recipe before a GPU is booked.

Our own rules come first and at once; then LLaMA-Factory is asked in a process of its own (about 15 s,
remembered): its validators, its template against the tokenizer's, and what `cutoff_len` cuts.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import click

from core.errors import CLI, SHOWN, ContentError, Problem, RequestError
from recipes.ask import ask, ask_weights
from recipes.data import Part, read_parts
from recipes.hardware import find_gpus
from recipes.output import RUN, STARTED, other_run
from recipes.recipe import Recipe, read_recipe
from recipes.record import inputs_of
from recipes.rules import problems_of, world_size
from recipes.schedule import Schedule, schedule_of, schedule_problems
from recipes.sizes import disk_of, existing, setup_of, shapes_of
from recipes.token_weights import weights_file

Answer = dict[str, object]


@click.command("check", context_settings=CLI)
@click.argument("arguments", nargs=-1, required=True, metavar="RECIPE... [KEY=VALUE]...")
@click.option("--model", help="Take tokenizer and config from this model folder (for a hub id, offline).")
@click.option("--show-weights", type=click.IntRange(1), metavar="N", help="Show N rows with their weights.")
@click.option("--quick", is_flag=True, help="Only what is found at once, without asking LLaMA-Factory.")
@click.option("--all", "show_all", is_flag=True, help="Show every problem, not the first 20.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each recipe.")
def command(
    arguments: tuple[str, ...],
    model: str | None,
    show_weights: int | None,
    quick: bool,
    show_all: bool,
    as_json: bool,
) -> None:
    """Say everything that is wrong with recipes, before a GPU is booked."""
    overrides = [argument for argument in arguments if "=" in argument]
    paths = [Path(argument) for argument in arguments if "=" not in argument]
    if not paths:
        raise RequestError("no recipe named; expected RECIPE… KEY=VALUE…, as in recipes/rte.yaml lora_rank=4")
    failed = 0
    for path in paths:
        try:
            recipe = read_recipe(path, overrides)
            if show_weights:
                print_weights(recipe, model, show_weights)
            else:
                failed += check(recipe, model, quick, show_all, as_json)
        except ContentError as error:
            click.echo(str(error), err=True)
            failed += 1
    if failed:
        raise ContentError(f"{failed} of {len(paths)} recipes cannot be trained as they are")


def check(recipe: Recipe, model: str | None, quick: bool, show_all: bool, as_json: bool) -> bool:
    """Print what is wrong with one recipe as it is found; return whether it cannot be trained."""
    parts, problems = quick_check(recipe)
    shown = 0 if as_json else _show(problems, SHOWN if not show_all else len(problems))
    answer: Answer = {}
    if not quick:
        if not as_json:
            click.echo(f"{recipe.path}: asking LLaMA-Factory …", err=True)
        answer = ask(recipe, model or str(recipe.settings.get("model_name_or_path")))
        found = list(answer_problems(recipe, answer, problems))
        if not any(
            problem.code.startswith(("E30", "E31")) for problem in problems
        ):  # it reads paths and numbers
            found += disk_problems(recipe, answer, training_schedule(recipe, parts))
        if not as_json:
            _show(found, SHOWN - shown if not show_all else len(found))
        problems += found
    unchecked = [] if quick else list(not_checked(answer))
    schedule = training_schedule(recipe, parts)
    if as_json:
        report = {"recipe": str(recipe.path), "problems": [asdict(problem) for problem in problems]}
        click.echo(json.dumps({**report, "not_checked": unchecked, "facts": answer}, ensure_ascii=False))
    else:
        for line in unchecked:
            click.echo(f"not checked: {line}")
        course = f"; {schedule.line()}" if schedule.rows else ""
        click.echo(f"{recipe.path}: {_verdict(problems)}{course}")
    return any(problem.code.startswith("E") for problem in problems)


def print_weights(recipe: Recipe, model: str | None, count: int) -> None:
    """Print the first rows with each learned token in the colour of its weight; the prompt is dim."""
    weights = weights_file(recipe.path)
    if weights is None:
        raise RequestError(f"{recipe.path.parent / 'weights' / recipe.path.name}: no weights for this recipe")
    rows = ask_weights(recipe, model or recipe.text("model_name_or_path"), weights, count)
    heights = sorted({weight for row in rows for _, weight in row if weight})
    colours = dict(zip(heights, itertools.cycle(["green", "yellow", "red", "magenta", "cyan"]), strict=False))
    for row in rows:
        click.echo("".join(click.style(text, fg=colours.get(weight), dim=not weight) for text, weight in row))
        for weight in heights:
            text = "".join(text for text, other in row if other == weight)
            click.echo(click.style(f"  {weight:g}: {text!r}", fg=colours[weight]))


def quick_check(recipe: Recipe) -> tuple[list[Part], list[Problem]]:
    """Return a recipe's datasets and everything that is wrong with it without asking LLaMA-Factory."""
    problems = problems_of(recipe, find_gpus())
    parts, found = read_parts(recipe)
    problems += found
    problems += schedule_problems(recipe, training_schedule(recipe, parts)) if parts else []
    if not any(problem.code.startswith("E") for problem in problems):
        problems += output_problems(recipe)
    return parts, problems


def training_schedule(recipe: Recipe, parts: list[Part]) -> Schedule:
    """Return the schedule of a recipe on this machine over its compiled rows."""
    limit = recipe.settings.get("max_samples")
    most = limit if isinstance(limit, int) else None
    rows = sum(part.rows if most is None else min(part.rows, most) for part in parts if part.key == "dataset")
    return schedule_of(recipe, rows, world_size(recipe, find_gpus()))


def output_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield what an output_dir that is already there means for a training into it."""
    folder = recipe.output_dir
    differs = other_run(folder, inputs_of(recipe, weights_file(recipe.path)))
    if differs and recipe.settings.get("overwrite_output_dir") is True:
        message = f"{folder} holds another run ({differs}); `recipes train` sets it aside"
        yield Problem("W340", recipe.place("output_dir"), message, "output_dir")
    elif differs:
        hint = "another output_dir, or overwrite_output_dir: true to set the old one aside"
        yield Problem(
            "E340", recipe.place("output_dir"), f"{folder} holds another run ({differs})", "output_dir", hint
        )
    elif (folder / RUN).is_file():
        yield Problem(
            "W341", recipe.place("output_dir"), f"{folder} holds this very run, finished", "output_dir"
        )
    elif (folder / STARTED).is_file():
        message = f"{folder} holds this run, cut off; `recipes train` goes on with it"
        yield Problem("W341", recipe.place("output_dir"), message, "output_dir")


def answer_problems(recipe: Recipe, answer: Answer, known: list[Problem]) -> Iterator[Problem]:
    """Yield what LLaMA-Factory's view of a recipe shows; its refusal only where ours had no reason for it."""
    rejected = answer.get("rejected")
    if rejected and not any(problem.code.startswith("E30") for problem in known):
        yield Problem("E350", str(recipe.path), f"LLaMA-Factory refuses it: {rejected}")
    model = answer.get("model")
    if isinstance(model, dict) and "lora_target" in str(model.get("error", "")):
        yield Problem("E351", recipe.place("lora_target"), str(model["error"]), "lora_target")
    tokens = answer.get("tokens")
    if not isinstance(tokens, dict) or "error" in tokens:
        return
    if tokens["template"]:
        hint = "leave `template` out to train the model's own" if "template" in recipe.settings else ""
        yield Problem(
            "W352",
            recipe.place("template"),
            f"scoring sees another prompt: {tokens['template']}",
            "template",
            hint,
        )
    if packs(recipe):
        return
    for name, counts in tokens["datasets"].items():
        if counts["cut"]:
            share = (
                f"{counts['cut']} of {counts['rows']} rows of {name} ({counts['cut'] / counts['rows']:.1%})"
            )
            message = f"cuts {share}; the longest has {counts['longest']} tokens"
            yield Problem("W353", recipe.place("cutoff_len"), message, "cutoff_len")


def disk_problems(recipe: Recipe, answer: Answer, schedule: Schedule) -> Iterator[Problem]:
    """Yield that the checkpoints do not fit where they go."""
    model = answer.get("model")
    if not schedule.rows or not isinstance(model, dict) or not model.get("trainable"):
        return
    disk = disk_of(recipe, shapes_of(model), setup_of(recipe, 0, world_size(recipe, find_gpus())), schedule)
    if disk.needed > disk.free:
        message = f"{disk.checkpoints} checkpoints take {disk.needed / 1e9:,.1f} GB"
        hint = "a smaller save_total_limit, or save_only_model: true"
        free = f"{message}, {disk.free / 1e9:,.1f} GB are free in {existing(recipe.output_dir)}"
        yield Problem("E342", recipe.place("output_dir"), free, "output_dir", hint)


def packs(recipe: Recipe) -> bool:
    """Return whether rows are packed into blocks of cutoff_len (the default of stage pt)."""
    given = recipe.settings.get("packing")
    return bool(recipe.settings.get("stage") == "pt" if given is None else given)


def not_checked(answer: Answer) -> Iterator[str]:
    """Yield what could not be looked at, and the way to have it looked at."""
    tokens, model = answer.get("tokens"), answer.get("model")
    if isinstance(tokens, dict) and "error" in tokens:
        yield f"template and cutoff_len ({tokens['error']}); give a model folder with --model DIR"
    if isinstance(model, dict) and "error" in model and "lora_target" not in str(model["error"]):
        yield f"lora_target ({model['error']}); give a model folder with --model DIR"


def _show(problems: list[Problem], limit: int) -> int:
    """Print the first problems, say how many more there are, and return how many were printed."""
    for problem in problems[: max(0, limit)]:
        click.echo(problem.line())
    if len(problems) > max(0, limit):
        click.echo(f"… {len(problems) - max(0, limit)} more (--all shows every one)")
    return min(len(problems), max(0, limit))


def _verdict(problems: list[Problem]) -> str:
    counts = ", ".join(f"{code} {n}" for code, n in sorted(Counter(p.code for p in problems).items()))
    errors = sum(problem.code.startswith("E") for problem in problems)
    words = f"{errors} errors, {len(problems) - errors} warnings" if problems else "nothing wrong"
    return f"{words} ({counts})" if counts else words
