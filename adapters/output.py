"""A finished folder in its place, whole or not at all: what may be replaced, and what never."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from adapters.config import CONFIG
from core.errors import RequestError
from core.files import locked, publish, recover, staging

# Written beside an adapter by LLaMA-Factory: the prompt that it was trained with.
TOKENIZER = (
    "added_tokens.json", "chat_template.jinja", "merges.txt", "special_tokens_map.json", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "vocab.json",
)  # fmt: skip


def check_output(out: Path, inputs: Iterable[Path], *, force: bool, marker: str = CONFIG) -> Path:
    """Return `out` resolved; `RequestError` where writing there could cost data.

    Refused: an output that is, holds or lies in an input; one that exists, without `force`; with
    `force` anything but a folder of plain files with `marker` among them, as we write it.
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
    if not target.is_dir() or not (target / marker).is_file() or any(p.is_dir() for p in target.iterdir()):
        raise RequestError(f"{out}: no folder that this command wrote; --force will not replace it")
    return target


@contextlib.contextmanager
def folder_for(target: Path) -> Iterator[Path]:
    """Yield a staged folder that takes the place of `target` when the block ends without an error."""
    with staging(target) as staged:
        yield staged
        with locked(target.parent):
            publish(staged, target)


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
