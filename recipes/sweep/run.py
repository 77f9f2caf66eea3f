"""What brings the points of a grid to finished, scored trainings."""

import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from tuneyard.core.errors import ContentError
from tuneyard.core.files import read_object, write_json
from tuneyard.recipes.check import ask_check, quick_check
from tuneyard.recipes.hardware import machine
from tuneyard.recipes.llamafactory_client import LlamaFactory
from tuneyard.recipes.output_dir import set_aside
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.rules import evaluated, measured
from tuneyard.recipes.train import ask_first, train

SCORED = "judged.json"  # the command that scored a run, written when all its results are there
OF_ROWS = ("stage", "model_name_or_path", "template", "dataset_dir", "dataset", "eval_dataset")
NOT_JUDGED = {"output_dir", "seed", "learning_rate"}  # settings that no answer of LLaMA-Factory depends on


def check_first(recipes: Sequence[Recipe], metric: str | None) -> None:
    """Refuse a grid if one of its runs cannot be trained or scored.

    LLaMA-Factory checks each run that differs in more than rates and seeds. It remembers rows and layout.
    The checks that it could not make are printed once for each dataset.
    """
    checked_settings: set[tuple[str, ...]] = set()
    judged: set[str] = set()
    for recipe in recipes:
        judged.update(recipe.settings)
    judged -= NOT_JUDGED
    with LlamaFactory(several=True) as llamafactory:
        for recipe in recipes:
            checked = quick_check(recipe, machine("this"))
            problems = checked.refuse()
            rows = tuple(str(recipe.settings.get(key)) for key in OF_ROWS)
            if metric and metric not in measured(recipe):
                evaluates = ""
                if not evaluated(recipe):
                    evaluates = "; hold rows out: val_size=0.1 eval_strategy=epoch"
                only = f"a run of it does not write {metric}, only {', '.join(measured(recipe))}"
                raise ContentError(f"{recipe.path}: {only}{evaluates}; or let a command score it: --eval")
            if rows not in checked_settings:
                problems = [*problems, *ask_first(llamafactory, checked)]
            elif any(recipe.settings.get(key) != recipes[0].settings.get(key) for key in judged):
                problems = [*problems, *ask_check(llamafactory, checked, None).refuse()]
            checked_settings.add(rows)
            never = [problem for problem in problems if problem.field == "eval_steps"]
            if metric in evaluated(recipe) and never:
                raise ContentError(f"{never[0].line()}, so that no run has its {metric}")


def finish(recipe: Recipe, evaluation: str | None) -> None:
    """Train a point that LLaMA-Factory has checked, and score it with a command if there is one."""
    train(recipe, ask=False)
    if evaluation is not None:
        evaluate(recipe.output_dir, evaluation)


def evaluate(folder: Path, evaluation: str) -> None:
    """Run the command that scores a run, unless it has scored it already.

    Results of another command or an interrupted one are set aside.
    """
    if (folder / SCORED).is_file() and read_object(folder / SCORED).get("command") == evaluation:
        return
    results = folder / "results"
    if results.exists():
        click.echo(f"{results}: cut off, or of another command; it is now {set_aside(results)}", err=True)
    words = [word.replace("{adapter}", str(folder)) for word in shlex.split(evaluation)]
    words = [word.replace("{results}", str(results)) for word in words]
    program = words
    if words[:1] == ["python"]:
        program = [sys.executable, *words[1:]]
    if subprocess.run(program, check=False, stdout=sys.stderr).returncode:
        raise ContentError(f"{folder}: the command that scores it failed: {shlex.join(words)}")
    write_json(folder / SCORED, {"command": evaluation})
