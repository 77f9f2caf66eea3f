"""A finished folder put in its place atomically: what may be replaced, and what never."""

import contextlib
import fcntl
import itertools
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from tuneyard.adapters.card import CARD
from tuneyard.adapters.config import CONFIG
from tuneyard.adapters.provenance import MERGE, read_provenance
from tuneyard.adapters.store import note
from tuneyard.core.base_models import INDEX
from tuneyard.core.errors import ContentError, RequestError, TuneyardError
from tuneyard.core.files import (
    OURS,
    abandoned,
    folder_size,
    locked,
    make_folder,
    named,
    publish,
    recovered,
    staging,
)

Check = Callable[[], Path]  # gives the output resolved; `RequestError` where it may not be written
Progress = Callable[[int], object]  # is given bytes

# Written beside an adapter by LLaMA-Factory: the prompt that it was trained with.
TOKENIZER = (
    "added_tokens.json", "chat_template.jinja", "merges.txt", "special_tokens_map.json", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "vocab.json",
)  # fmt: skip
_SHARD = re.compile(r"(adapter_)?model(-\d+-of-\d+)?\.safetensors")


def check_output(out: Path, inputs: Sequence[Path], command: str, *, force: bool) -> Path:
    """Resolve `out`; `RequestError` if writing there could cost data.

    Refused: an output that is an input, contains one or lies in one; one that exists, without `force`; with
    `force` anything but a folder that the same `command` wrote (by its merge.json), with our files alone.
    """
    target = out.resolve()
    sources = [folder.resolve() for folder in inputs]
    for folder, source in zip(inputs, sources, strict=True):
        if target == source or target in source.parents or source in target.parents:
            raise RequestError(f"{out}: output over an input ({folder}); choose another --out")
    foreign = _foreign(target, command, sources) if target.exists() else ""
    check_free(out, force=force, replaceable=not foreign)
    if foreign:
        raise RequestError(
            f"{out}: found {foreign}: no folder that this command wrote, --force will not replace it; "
            "choose another --out"
        )
    return target


def check_free(out: Path, *, force: bool, replaceable: bool) -> None:
    """Raise `RequestError` if something is at `out`, without `force`, naming a killed run's rest.

    `force` is offered only if what is there is `replaceable`: written by the same command.
    """
    target = out.resolve()
    if not target.exists() or force:
        return
    rests = [path for path in abandoned(target.parent) if path.name.startswith(f".{target.name}.")]
    sizes = [f"beside it {path}, {folder_size(path) / 1e9:.2f} GB of a killed run" for path in rests]
    found = "".join(f" ({told})" for told in sizes)
    fix = "choose another --out, or replace it with --force" if replaceable else "choose another --out"
    raise RequestError(f"{out}: already there{found}; {fix}")


def _foreign(target: Path, command: str, sources: Iterable[Path]) -> str:
    """Name what `command` neither wrote at `target` nor carried to it from `sources`, "" without any."""
    if not target.is_dir():
        return "a file"
    try:
        record = read_provenance(target)
    except ContentError:
        return f"a damaged {MERGE}"
    if record is None:
        return f"a folder without {MERGE}"
    if record["command"] != command:
        return f"what `tuneyard adapter {record['command']}` wrote"
    folders = [path.name for path in target.iterdir() if path.is_dir()]
    if folders:
        return f"a folder {min(folders)} in it"
    config = CONFIG if command == "merge" else "config.json"
    expected = {MERGE, CARD, INDEX, config, *TOKENIZER}
    for source in sources:
        if source.is_dir():
            expected.update(path.name for path in source.iterdir())
    names = [path.name for path in target.iterdir() if not _SHARD.fullmatch(path.name)]
    others = sorted(set(names) - expected)
    return f"{others[0]} in it" if others else ""


@contextlib.contextmanager
def staged_for(check: Check) -> Iterator[Path]:
    """Yield a staged folder; what killed runs left beside the target is removed before.

    The folder, or the file of the target's name that the block put into it, takes the target's place
    when the block ends without an error (see `_put`).
    """
    target = check()
    _clean_up(target.parent)
    with staging(target) as staged:
        yield staged
        file = staged / target.name
        _put(file if file.is_file() else staged, target, check)


@contextlib.contextmanager
def resumable(check: Check) -> Iterator[Path]:
    """Yield `.NAME.tuneyard-fusing` beside the target, kept by an interruption and resumed by the next run.

    It takes the target's place when the block ends without an error, and goes away where the
    content was wrong. `RequestError` while another run holds it.
    """
    target = check()
    folder = target.with_name(f".{target.name}.{OURS}fusing")
    make_folder(target.parent)
    with named(target), contextlib.ExitStack() as stack:
        with locked(target.parent):  # so that no other run takes it for one of the dead
            if folder.is_symlink():  # nobody's run: what a link leads to would be emptied
                raise RequestError(f"{folder}: a link, where an interrupted run keeps a folder; remove it")
            folder.mkdir(exist_ok=True)
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            stack.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RequestError(f"{target}: another run is writing it") from error
        _clean_up(target.parent)
        try:
            yield folder
            _put(folder, target, check)
        except TuneyardError:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _put(staged: Path, target: Path, check: Check) -> None:
    """Put a finished folder or file in its place, where `check` still lets it; else keep it beside."""
    with locked(target.parent):
        try:
            check()
        except RequestError as error:
            stem, suffix = (target.stem, target.suffix) if staged.is_file() else (target.name, "")
            names = (target.with_name(f"{stem}-{n}{suffix}") for n in itertools.count(2))
            beside = next(path for path in names if not path.exists())
            publish(staged, beside)
            kept = f"it came while this ran, whose result is kept as {beside}"
            raise RequestError(f"{error}; {kept}") from error
        publish(staged, target)


def require_space(target: Path, needed: int) -> None:
    """Raise `RequestError` where less than `needed` bytes are free; what killed runs left counts as free."""
    there = next(path for path in target.parents if path.exists())
    free = shutil.disk_usage(there).free + sum(map(folder_size, abandoned(target.parent)))
    if free < needed:
        raise RequestError(f"{target}: {needed / 1e9:.1f} GB needed, {free / 1e9:.1f} GB free")


def _clean_up(parent: Path) -> None:
    """Drop what killed runs left in `parent`, and say so."""
    with recovered(parent) as dropped:
        for name, size in dropped.items():
            note(f"removed {parent / name}, {size / 1e9:.2f} GB that a killed run left")


def carry_tokenizer(sources: list[Path], staged: Path, otherwise: str) -> None:
    """Copy tokenizer and chat template where all sources that have them agree; of others say `otherwise`."""
    found = {name: [folder / name for folder in sources if (folder / name).is_file()] for name in TOKENIZER}
    differing = [name for name, files in found.items() if len({file.read_bytes() for file in files}) > 1]
    for name, files in found.items():
        if files and name not in differing:
            shutil.copyfile(files[0], staged / name)
    if differing:
        note(f"{otherwise}, since the adapters differ in them: {', '.join(differing)}")
