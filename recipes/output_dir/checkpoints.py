"""Complete and incomplete checkpoints in an output_dir, and from which one a training resumes.

The trainer writes trainer_state.json last, but not everything before it is synced, so each file is checked.
"""

import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tuneyard.core.documents import is_number
from tuneyard.core.errors import ContentError, show_value
from tuneyard.core.files import names_folder, read_object
from tuneyard.core.files.bounded_reading import read_text, refuse_pipe
from tuneyard.core.language.message import _, relative, typed, with_texts
from tuneyard.core.language.messages import say
from tuneyard.core.training.training_run import (
    CHECKPOINT,
    checkpoint_folders,
)
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.rules.starting_weights import check_weights

STATE = "trainer_state.json"
STATE_FILES = ("optimizer.pt", "scheduler.pt")
PICKLED = ("adapter_model.bin", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""Weights of a checkpoint in PyTorch's own form, which are not opened."""


def checkpoints(output_dir: Path) -> dict[Path, str]:
    """Reason why each folder `checkpoint-STEP` cannot be resumed from, or "", the newest first."""
    return {path: find_flaw(path) for path in checkpoint_folders(output_dir)}


def find_flaw(folder: Path, *, needs_optimizer: bool = True) -> str:
    """Reason why training cannot resume from a checkpoint folder, or "".

    transformers resumes without optimizer and scheduler, too, and begins both again. Without
    `needs_optimizer` that is no flaw.
    """
    name = CHECKPOINT.fullmatch(folder.name)
    try:
        step = read_object(folder / STATE).get("global_step")
        if name and step != int(name[1]):  # training would resume at that step
            return _(
                "trainer_state.json: found global_step {step}, expected {expected}",
                step=show_value(step),
                expected=name[1],
            )
        if not any((folder / weights).is_file() for weights in PICKLED):
            check_weights(folder)
        missing = [] if needs_optimizer else missing_state(folder)
        for path in _torch_files(folder):
            if path.name in missing:
                continue
            refuse_pipe(path)
            try:  # a zip archive, its directory last; nothing is unpickled
                zipfile.ZipFile(path).close()
            except zipfile.BadZipFile:
                return _("{name} is cut off ({size} bytes)", name=path.name, size=path.stat().st_size)
    except FileNotFoundError as error:
        return _("{path} is missing", path=Path(error.filename).name)
    except ContentError as error:
        return within(folder, error)
    except (OSError, ValueError, TypeError) as error:  # a folder for a file, bytes that are no text
        return _("cannot be read: {error}", error=error)
    return ""


def within(folder: Path, error: ContentError) -> str:
    """The message of an error about a file of a folder, with the file's name alone."""
    return with_texts(
        error.message, lambda text: text.removeprefix(f"{folder}/").removeprefix(f"{relative(folder)}/")
    )


def missing_state(folder: Path) -> list[str]:
    """Files of optimizer and scheduler that a checkpoint lacks. One of DeepSpeed has them in other files."""
    return [name for name in STATE_FILES if not (folder / name).exists()]


def _torch_files(folder: Path) -> Iterator[Path]:
    """Yield the torch.save files that a training resumes from. `ContentError` if a rank has none."""
    latest = folder / "latest"
    if latest.is_file():
        name = read_text(latest).strip()
        if not names_folder(name) or not name.isprintable():
            raise ContentError(
                _(
                    "{latest}: found {name}, expected the name of a folder in it",
                    latest=latest,
                    name=show_value(name),
                )
            )
        states = folder / name
        ranks = max(1, len(list(folder.glob("rng_state_*.pth"))))
        count = len(list(states.glob("*_optim_states.pt")))
        if count != ranks:
            raise ContentError(
                _(
                    "{name}: optimizer states of {count} ranks, expected {number}",
                    name=states.name,
                    count=count,
                    number=ranks,
                )
            )
        yield from states.glob("*.pt")
    elif any(folder.glob("global_step*")):
        raise ContentError(_("latest is missing (DeepSpeed)"))
    else:
        yield folder / "optimizer.pt"
        yield folder / "scheduler.pt"  # without it, the learning rate starts again
    yield from folder.glob("rng_state*.pth")


def resume_point(output_dir: Path) -> Path | None:
    """Newest complete checkpoint. Incomplete ones are renamed, so that LLaMA-Factory does not find them."""
    newest = None
    for path, flaw in checkpoints(output_dir).items():
        if flaw:
            say(_("{path}: skipped, {flaw}", path=path, flaw=flaw))
            set_aside(path, f"incomplete-{path.name}")
        elif newest is None:
            newest = path
    if newest:
        step = newest.name.removeprefix("checkpoint-")
        if is_past_last_step(newest):
            say(
                _(
                    "{path}: saved after the last step, {step}: no step is left to train",
                    path=newest,
                    step=step,
                )
            )
        else:
            say(_("{path}: resuming after step {step}", path=newest, step=step))
    return newest


def is_past_last_step(checkpoint: Path) -> bool:
    """True for a checkpoint that was saved at the last step of its training, or after it."""
    state = read_object(checkpoint / STATE)
    step, last_step = state.get("global_step"), state.get("max_steps")
    return is_number(step) and is_number(last_step) and 0 < last_step <= step


def command_to_resume(recipe: Recipe) -> str:
    """The command that continues a run of `llamafactory-cli train`, "" if no checkpoint of it is complete.

    What it was trained on is not recorded, so `tuneyard recipe train` does not take it for its own.
    """
    for path, flaw in checkpoints(recipe.output_dir).items():
        if not flaw:
            options = [*recipe.overrides, "overwrite_output_dir=false", f"resume_from_checkpoint={path}"]
            return typed(["llamafactory-cli", "train", str(recipe.path), *options])
    return ""


def set_aside(path: Path, name: str = "") -> Path:
    """Rename a folder to `name`, or to the first free `NAME.1`, `NAME.2`, …, and return the new path."""
    target = path.with_name(name or path.name)
    free = target
    for number in itertools.count(1):
        if not free.exists():
            break
        free = target.with_name(f"{target.name}.{number}")
    return path.rename(free)
