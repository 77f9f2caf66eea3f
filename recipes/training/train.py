"""One training: checked, resumed where it was cut off, recorded last."""

import netrc
import os
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tuneyard.core.documents import dump_yaml
from tuneyard.core.errors import ContentError, Problem
from tuneyard.core.errors.problem_codes import guide
from tuneyard.core.execution.state import CURRENT, NEW, State
from tuneyard.core.files import make_folder, reserved, write_json, write_text
from tuneyard.core.files.links import refuse_links_in
from tuneyard.core.files.temporaries import locked
from tuneyard.core.language.message import _, typed
from tuneyard.core.language.messages import say
from tuneyard.core.llamafactory.prompt.token_weights import weights_file
from tuneyard.core.training.training_run import STARTED, TRAINING
from tuneyard.recipes.checking.checked import Checked, ask_check, not_checked, quick_check
from tuneyard.recipes.llamafactory.launch import launch, training_command
from tuneyard.recipes.machine.hardware import Machine, cpu_computes_bf16, machine, uses_torchrun, world_size
from tuneyard.recipes.output_dir.checkpoints import (
    checkpoints,
    is_past_last_step,
    resume_point,
    set_aside,
)
from tuneyard.recipes.output_dir.record import (
    EFFECTIVE,
    changed_inputs,
    changed_world_size,
    facts_of,
    facts_of_ended_training,
    has_results,
    has_training,
    how_to_go_on,
    inputs_of,
    state_of_run,
    training_record,
)
from tuneyard.recipes.output_dir.resume import kept_settings, why_not_resumed
from tuneyard.recipes.output_dir.trained_rows import record_trained_rows
from tuneyard.recipes.recipe import Recipe, RunProblem
from tuneyard.recipes.recipe.model_source import require_model
from tuneyard.recipes.recipe.schedule import Schedule, schedule_of
from tuneyard.recipes.rules.setting_rules import cpu_settings


class TrainRequest(NamedTuple):
    """What a user asks `recipe train` for.

    - `recipe`: with the settings that the user changed.
    - `force`: set a run of another number of processes aside.
    - `runs_model_code`: the check may run the model's Python files, as the training may anyway.
    - `is_checked`: LLaMA-Factory has checked the recipe already.
    """

    recipe: Recipe
    force: bool = False
    runs_model_code: bool = False
    is_checked: bool = False


def state(request: TrainRequest) -> State:
    """How far the training of a request is in its output_dir, on this machine.

    Datasets and model are hashed, and nothing is written.
    """
    return recipe_state(request.recipe, machine("this"))


def recipe_state(recipe: Recipe, target: Machine | None) -> State:
    """How far a training is. Without a machine the number of its processes is not compared."""
    if not has_training(recipe.output_dir):
        return NEW  # and the model is not hashed
    world: dict[str, object] = {}
    if target is not None:
        world = schedule_of(recipe, 0, world_size(recipe, target.gpus)).world
    return state_of_run(recipe.output_dir, inputs_of(recipe, weights_file(recipe.path)), world)


def train(request: TrainRequest) -> State:
    """Train until a recipe's output_dir has a finished run. training.json is written last.

    Returns the state before: if it is current, nothing was done.
    """
    recipe, force = request.recipe, request.force
    target = machine("this")
    checked = quick_check(recipe, target)
    _show_warnings(checked.refuse())
    world = checked.schedule.world
    weights = weights_file(recipe.path)
    ranks = uses_torchrun(recipe, target.gpus)
    if ranks and not target.gpus:
        os.environ.setdefault("NPROC_PER_NODE", "1")  # torchrun would start one for each GPU: none
    inputs = inputs_of(recipe, weights)
    output_dir = recipe.output_dir
    with ExitStack() as stack:
        if force or changed_inputs(output_dir, inputs) or not (output_dir / TRAINING).is_file():
            training_command(weights, uses_torchrun=ranks)  # before anything is renamed or written
            require_model(recipe)
            if not request.is_checked:
                _show_warnings(ask_first(checked, runs_model_code=request.runs_model_code))
        lock = _reserve(recipe, inputs, world, force, stack)
        refuse_links_in(output_dir)
        if (output_dir / TRAINING).is_file():
            return CURRENT
        state_before = state_of_run(output_dir, inputs, world)
        if has_results(recipe):  # a command that was killed before it wrote training.json
            say(
                _(
                    "{path}: the training has ended, only {file} is missing",
                    path=output_dir,
                    file=TRAINING,
                )
            )
            facts = facts_of_ended_training(recipe)
        else:
            if weights:
                say(_("key-token weights from {path}", path=weights))
            added = _added_settings(recipe, checked.schedule, has_gpus=bool(target.gpus))
            for note in record_trained_rows(recipe, inputs):
                say(note, to_stderr=True)
            write_json(output_dir / STARTED, {**inputs, **world})
            effective = output_dir / EFFECTIVE
            write_text(effective, dump_yaml({**recipe.settings, **added}))
            started, clock = datetime.now(UTC), time.monotonic()
            command = [*training_command(weights, uses_torchrun=ranks), str(effective)]
            launch(command, output_dir, lock, uses_torchrun=ranks, **recipe.secret_variables())
            facts = facts_of(added, started, time.monotonic() - clock)
        hardware = f"{len(target.gpus)} × {target.gpus[0].name}" if target.gpus else "CPU"
        record = training_record(recipe, inputs, {**world, "hardware": hardware, **facts})
        write_json(output_dir / TRAINING, record)
    say(_("{path}: trained in {seconds} s", path=output_dir, seconds=facts["seconds"]))
    return state_before


def _added_settings(recipe: Recipe, schedule: Schedule, *, has_gpus: bool) -> dict[str, object]:
    """Settings for a machine without GPUs, for a configured wandb, and to resume the run or start again."""
    added: dict[str, object] = {}
    if not has_gpus or recipe.settings.get("use_cpu") is True:
        added = cpu_settings(recipe, computes_bf16=cpu_computes_bf16())
    if "use_cpu" in added:
        say(_("no GPU here: added use_cpu=true"))
    if "bf16" in added:
        say(_("this CPU has no bfloat16 arithmetic: added bf16=false"))
    if "report_to" not in recipe.settings and is_wandb_configured():
        say(_("wandb is configured: added report_to=wandb (report_to=none leaves it out)"))
        added["report_to"] = "wandb"
    output_dir, restart = recipe.output_dir, why_not_resumed(recipe)
    if not restart:
        newest = resume_point(output_dir)
        if newest:
            _show_warnings(list(kept_settings(recipe, newest, schedule)))
            # overwrite_output_dir would delete the log of the steps before the checkpoint
            added |= {"resume_from_checkpoint": str(newest), "overwrite_output_dir": False}
            if is_past_last_step(newest) and recipe.settings.get("streaming") is not True:
                # with max_steps the trainer trains one step more; without epochs it only writes the model
                added |= {"max_steps": -1, "num_train_epochs": 0}
    elif checkpoints(output_dir):
        say(
            _(
                "{path}: starting again, its checkpoints cannot be resumed: {reason}",
                path=output_dir,
                reason=restart,
            )
        )
        added["overwrite_output_dir"] = True  # otherwise LLaMA-Factory resumes by itself
    return added


def ask_first(quick: Checked, *, runs_model_code: bool) -> list[Problem]:
    """Add LLaMA-Factory's findings to a quick check. `ProblemsError` for its errors."""
    checked = ask_check(quick, None, runs_model_code=runs_model_code)
    for line in not_checked(checked, quick.recipe.text("model_name_or_path")):
        say(_("not checked: {what}", what=line), to_stderr=True)
    return checked.refuse()


def _show_warnings(problems: list[Problem]) -> None:
    codes = []
    for problem in problems:
        if not isinstance(problem, RunProblem):
            say(problem.line(), to_stderr=True)
            codes.append(problem.code)
    for line in guide(codes):
        say(line, to_stderr=True)


def _reserve(
    recipe: Recipe, inputs: dict[str, object], world: dict[str, object], force: bool, stack: ExitStack
) -> int:
    """Reserve the output_dir, first setting another run in it aside, and return the lock's descriptor."""
    output_dir = recipe.output_dir
    make_folder(output_dir.parent)
    with locked(output_dir.parent):
        with reserved(output_dir):
            differs, grown = changed_inputs(output_dir, inputs), changed_world_size(output_dir, world)
            if not differs and grown and not force:
                words = dict.fromkeys([*recipe.overrides, f"output_dir={output_dir}"])
                command = typed(["tuneyard", "recipe", "train", str(recipe.path), *words, "--force"])
                raise ContentError(
                    _(
                        "{path} was trained with {difference}: other steps; take as many processes as "
                        "then, or `{command}` trains it again",
                        path=output_dir,
                        difference=grown,
                        command=command,
                    )
                )
            if differs and recipe.settings.get("overwrite_output_dir") is not True:
                fix = _("give another output_dir=…, or overwrite_output_dir=true to set the old one aside")
                raise ContentError(
                    _(
                        "{path} holds another run ({difference}); {hint}",
                        path=output_dir,
                        difference=differs,
                        hint=how_to_go_on(recipe, inputs, fix),
                    )
                )
            difference = differs or grown
            if difference:
                say(
                    _(
                        "{path} held another run ({difference}); it is now {other}",
                        path=output_dir,
                        difference=difference,
                        other=set_aside(output_dir),
                    )
                )
        return stack.enter_context(reserved(output_dir))


def is_wandb_configured() -> bool:
    """True if wandb is installed and runs without asking for a login."""
    mode, login_file = os.environ.get("WANDB_MODE", "").lower(), os.environ.get("NETRC")
    is_disabled = os.environ.get("WANDB_DISABLED", "").lower() in {"1", "true", "yes", "on"}
    if find_spec("wandb") is None or mode == "disabled" or is_disabled:
        return False
    if mode == "offline" or os.environ.get("WANDB_API_KEY"):
        return True
    server = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname
    try:
        return server in netrc.netrc(login_file or str(Path.home() / ".netrc")).hosts
    except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
        return False
