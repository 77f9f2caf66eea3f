"""A finished folder in its place, whole or not at all: what may be replaced, and what never."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from adapters.base import INDEX
from adapters.config import CONFIG
from core.errors import RequestError, TuneyardError
from core.files import locked, publish, recover, staging

# Written beside an adapter by LLaMA-Factory: the prompt that it was trained with.
TOKENIZER = (
    "added_tokens.json", "chat_template.jinja", "merges.txt", "special_tokens_map.json", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "vocab.json",
)  # fmt: skip
CARD = "README.md"
MARK = "written by Tuneyard"  # in the card of every adapter or model that we write
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot")


def check_output(out: Path, inputs: Iterable[Path], *, force: bool, marker: str = CONFIG) -> Path:
    """Return `out` resolved; `RequestError` where writing there could cost data.

    Refused: an output that is, holds or lies in an input; one that exists, without `force`; with
    `force` anything but a folder of plain files with `marker` and our card among them, as we write it.
    """
    target = out.resolve()
    for folder in inputs:
        source = folder.resolve()
        if target == source or target in source.parents or source in target.parents:
            raise RequestError(f"{out}: output over an input ({folder}); choose another --out")
    if not target.exists():
        return target
    if not force:
        raise RequestError(f"{out}: already there; choose another --out, or replace it with --force")
    foreign = _foreign(target, marker)
    if foreign:
        raise RequestError(
            f"{out}: found {foreign}: no folder that this command wrote, --force will not replace it; "
            "choose another --out"
        )
    return target


def _foreign(target: Path, marker: str) -> str:
    """Return in words what shows that we did not write what lies at `target`, "" where we did."""
    if not target.is_dir():
        return "a file"
    for name in (marker, CARD):
        if not (target / name).is_file():
            return f"a folder without {name}"
    inner = next((path.name for path in target.iterdir() if path.is_dir()), None)
    if inner:
        return f"a folder {inner} in it"
    return "" if MARK.encode() in (target / CARD).read_bytes() else f"a {CARD} that is not ours"


@contextlib.contextmanager
def folder_for(target: Path) -> Iterator[Path]:
    """Yield a staged folder that takes the place of `target` when the block ends without an error."""
    with staging(target) as staged:
        yield staged
        with locked(target.parent):
            publish(staged, target)


@contextlib.contextmanager
def resumable(target: Path) -> Iterator[Path]:
    """Yield `.NAME.tuneyard.fusing` beside `target`, kept by an interruption and taken up by the next run.

    It takes the place of `target` when the block ends without an error, and goes away where the
    content was wrong. `RequestError` while another run holds it.
    """
    folder = target.with_name(f".{target.name}.tuneyard.fusing")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except NotADirectoryError as error:  # nobody's run: what a link leads to would be emptied
        raise RequestError(f"{folder}: a link, where an interrupted run keeps a folder; remove it") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder
        with locked(target.parent):
            publish(folder, target)
    except BlockingIOError as error:
        raise RequestError(f"{target}: another run is writing it") from error
    except TuneyardError:
        shutil.rmtree(folder)
        raise
    finally:
        os.close(handle)


def require_space(folder: Path, needed: int) -> None:
    """Raise `RequestError` where the disk under `folder` has less than `needed` bytes free."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise RequestError(f"{folder}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")


def carry_model_files(base: Path, staged: Path) -> None:
    """Copy everything of a base model but its weights, its card and its config."""
    for file in sorted(base.iterdir()):
        left_out = file.suffix in WEIGHT_SUFFIXES or file.name in (CARD, "config.json", INDEX)
        if file.is_file() and not file.name.startswith(".") and not left_out:
            shutil.copyfile(file, staged / file.name)


def clean_up(parent: Path) -> None:
    """Drop what killed runs left in `parent`."""
    if parent.is_dir():
        with locked(parent):
            recover(parent)


def carry_tokenizer(sources: list[Path], staged: Path) -> list[str]:
    """Copy tokenizer and chat template where all sources that have them agree; return those that differ."""
    differing = []
    for name in TOKENIZER:
        files = [folder / name for folder in sources if (folder / name).is_file()]
        if not files:
            continue
        if len({file.read_bytes() for file in files}) == 1:
            shutil.copyfile(files[0], staged / name)
        else:
            differing.append(name)
    return differing
