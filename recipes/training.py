"""From a recipe to a finished run in its output_dir: checked, resumed where it was cut off, recorded last."""

import os
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import click
import yaml

from core.errors import ContentError, ProblemsError
from core.files import locked, write_json, write_text
from recipes.check import quick_check
from recipes.hardware import cpu_computes_bf16, describe, find_gpus
from recipes.launch import launch, llamafactory, weighted
from recipes.model import require_model
from recipes.output import (
    RUN,
    STARTED,
    Checkpoint,
    checkpoints,
    other_run,
    reserved,
    set_aside,
    set_aside_broken,
)
from recipes.recipe import Recipe
from recipes.record import inputs_of, run_record
from recipes.rules import uses_torchrun
from recipes.token_weights import weights_file

OF_NO_NEWS = {"W340", "W341"}  # what training itself says about its output_dir


def train(recipe: Recipe) -> None:
    """Bring a recipe's output_dir to a finished run; run.json is written last."""
    _require_sound(recipe)
    weights = weights_file(recipe.path)
    ranks = uses_torchrun(recipe, find_gpus())
    if ranks and not find_gpus():
        os.environ.setdefault("NPROC_PER_NODE", "1")  # torchrun would start one for each GPU: none
    command = weighted(weights, ranks) if weights else llamafactory()
    inputs = inputs_of(recipe, weights)
    output_dir = recipe.output_dir
    if other_run(output_dir, inputs) or not (output_dir / RUN).is_file():
        require_model(recipe)  # before anything is renamed or written
    with ExitStack() as stack:
        lock = _reserve(recipe, inputs, stack)
        if (output_dir / RUN).is_file():
            click.echo(f"{output_dir}: up to date")
            return
        newest = _resume_point(output_dir)
        if weights:
            click.echo(f"key-token weights from {weights}")
        added = additions(recipe, newest)
        write_json(output_dir / STARTED, inputs)
        effective = output_dir / "recipe.yaml"
        write_text(effective, yaml.safe_dump({**recipe.settings, **added}, sort_keys=False))
        started, clock = datetime.now(UTC), time.monotonic()
        launch([*command, str(effective)], output_dir, lock, ranks)
        facts = {
            "added": added,
            "hardware": describe(),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - clock, 1),
        }
        write_json(output_dir / RUN, run_record(recipe, inputs, facts))
    click.echo(f"{output_dir}: trained in {facts['seconds']} s")


def _require_sound(recipe: Recipe) -> None:
    """Make the checks that take no time; LLaMA-Factory's own come with its start."""
    _, problems = quick_check(recipe)
    errors = [problem for problem in problems if problem.code.startswith("E")]
    if errors:
        raise ProblemsError(errors, str(recipe.path))
    for problem in problems:
        if problem.code not in OF_NO_NEWS:
            click.echo(problem.line(), err=True)


def _reserve(recipe: Recipe, inputs: dict[str, object], stack: ExitStack) -> int:
    """Reserve the output_dir, first setting another run in it aside, and return the lock's descriptor."""
    output_dir = recipe.output_dir
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with locked(output_dir.parent):
        with ExitStack() as attempt:
            lock = attempt.enter_context(reserved(output_dir))
            differs = other_run(output_dir, inputs)
            if not differs:
                stack.enter_context(attempt.pop_all())
                return lock
        if recipe.settings.get("overwrite_output_dir") is not True:
            raise ContentError(
                f"{output_dir} holds another run ({differs}); give another output_dir=…, "
                "or overwrite_output_dir=true to set the old one aside"
            )
        click.echo(f"{output_dir} held another run ({differs}); it is now {set_aside(output_dir)}")
        return stack.enter_context(reserved(output_dir))


def _resume_point(output_dir: Path) -> Checkpoint | None:
    """Return the newest whole checkpoint; broken ones are named and moved out of the way."""
    found = checkpoints(output_dir)
    for checkpoint in found:
        if checkpoint.flaw:
            click.echo(f"{checkpoint.path}: passed over, {checkpoint.flaw}")
    set_aside_broken(found)
    newest = next((checkpoint for checkpoint in found if not checkpoint.flaw), None)
    if newest:
        click.echo(f"{newest.path}: resuming after step {newest.step}")
    return newest


def additions(recipe: Recipe, newest: Checkpoint | None) -> dict[str, object]:
    """Return the settings that this machine and this moment add to a recipe, and say each."""
    added: dict[str, object] = {}
    if not find_gpus() and "use_cpu" not in recipe.settings:
        added["use_cpu"] = True
        click.echo("no GPU here: added use_cpu=true")
        if recipe.settings.get("bf16") is True and not cpu_computes_bf16():
            added["bf16"] = False
            click.echo("this CPU has no bfloat16 arithmetic: added bf16=false")
    if newest:
        # overwrite_output_dir would delete the log of the steps before the checkpoint
        added |= {"resume_from_checkpoint": str(newest.path), "overwrite_output_dir": False}
    return added
