"""Put a finished folder in its place atomically, and refuse to replace anything but our own output."""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from tuneyard.adapters.model.provenance import CARD
from tuneyard.adapters.write.carried_tokenizer import PROMPT_FILES
from tuneyard.core.errors import ContentError, RequestError, TuneyardError
from tuneyard.core.execution.state import CURRENT, State
from tuneyard.core.files import (
    RECOVERABLE,
    existing,
    free_path,
    make_folder,
    named,
    publish,
    recovered,
    reserved,
    staging,
)
from tuneyard.core.files.links import own_file
from tuneyard.core.files.temporaries import OURS, abandoned, locked, size_of
from tuneyard.core.language.message import _, joined
from tuneyard.core.language.number_format import size_words
from tuneyard.core.training.training_run import MERGE, TRAINED_ROWS, read_provenance
from tuneyard.core.weights.adapter_files import CONFIG
from tuneyard.core.weights.tensors import INDEX, Spec

Check = Callable[[], Path]  # resolves the output; `RequestError` if it may not be written
Progress = Callable[[int], object]  # called with the number of bytes done
Changes = Callable[[], Sequence[str]]  # what has changed since an output was written
SHOWN_CHANGES = 5  # in a message

WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot")
WRITTEN = (CARD, MERGE, "config.json", INDEX, TRAINED_ROWS)
"""Files next to the weights that are written anew for a result, and not copied."""
_SHARD = re.compile(r"(adapter_)?model(-\d+-of-\d+)?\.safetensors")


def check_outside(out: Path, inputs: Iterable[Path]) -> Path:
    """Resolve `out`; `RequestError` if it is an input, or lies in one, which would change with it."""
    target = out.resolve()
    for folder in inputs:
        if folder.resolve() in (target, *target.parents):
            raise RequestError(
                _("{path}: output over an input ({input}); choose another --out", path=out, input=folder)
            )
    return target


@dataclass(frozen=True, slots=True)
class Written:
    """The result of a command: the folder `out`, lines about it and notes for people.

    `is_current`: the result was there already, from the same inputs, so that nothing was written.
    """

    out: Path
    lines: Sequence[str] = ()
    notes: Sequence[str] = ()
    is_current: bool = False


def no_progress(_count: int) -> None:
    """Show no progress."""


class Plan(Protocol):
    """The checked work of a command, which `write` does."""

    @property
    def notes(self) -> Sequence[str]:
        """Notes on the inputs."""

    def write(self, progress: Progress) -> Written:
        """Write the result; `progress` is called with bytes."""


def make(out: Path, state: State, plan: Callable[[], Plan], progress: Progress) -> Written:
    """Plan a result and write it, unless it is current."""
    if state == CURRENT:
        return Written(out, is_current=True)
    planned = plan()
    written = planned.write(progress)
    return replace(written, notes=[*planned.notes, *written.notes])


def is_there(out: Path) -> bool:
    """True if there is a file or folder at `out`, or a link to one."""
    return out.resolve().exists()


def check_output(
    out: Path, inputs: Sequence[Path], command: str, *, force: bool, changes: Changes = tuple
) -> Path:
    """Resolve `out`; `RequestError` if writing there could cost data.

    Refused: an output that is an input, contains one or lies in one; an existing output without `force`; with
    `force` anything but a folder that the same `command` wrote (by its merge.json), with our files alone.
    `changes` are those of the state of an existing output, for the message.
    """
    target = check_outside(out, inputs)
    for folder in inputs:
        if target in folder.resolve().parents:
            raise RequestError(
                _("{path}: output over an input ({input}); choose another --out", path=out, input=folder)
            )
    if not target.exists():
        return target
    foreign = _foreign(target, command, inputs)
    check_free(out, force=force, replaceable=not foreign, changes=changes)
    if foreign:
        raise RequestError(
            _(
                "{path}: found {content}, expected a folder that this command wrote: --force will not "
                "replace it; choose another --out",
                path=out,
                content=foreign,
            )
        )
    return target


def check_free(out: Path, *, force: bool, replaceable: bool, changes: Changes = tuple) -> None:
    """`RequestError` if `out` exists, without `force`.

    The message names what has changed since, and offers `--force` if the output is `replaceable`: written by
    the same command.
    """
    if not is_there(out) or force:
        return
    fix = _("choose another --out")
    if replaceable:
        fix = _("choose another --out, or replace it with --force")
    listed = [*changes()]
    if not listed:
        raise RequestError(_("{out}: already there; {fix}", out=out, fix=fix))
    if len(listed) > SHOWN_CHANGES:
        listed[SHOWN_CHANGES:] = [_("… and {number} more", number=len(listed) - SHOWN_CHANGES)]
    raise RequestError(
        _("{out}: already there, and not current: {changes}; {fix}", out=out, changes=joined(listed), fix=fix)
    )


def _foreign(target: Path, command: str, sources: Iterable[Path]) -> str:
    """Name a file or folder at `target` that `command` neither wrote nor copied from `sources`, or ""."""
    if not target.is_dir():
        return _("a file")
    try:
        record = read_provenance(target)
    except ContentError:
        return _("a damaged {file}", file=MERGE)
    if record is None:
        return _("a folder without {file}", file=MERGE)
    if record["command"] != command:
        return _("the output of `tuneyard adapter {command}`", command=record["command"])
    config = CONFIG if command == "merge" else "config.json"
    expected = {MERGE, CARD, INDEX, TRAINED_ROWS, config, *PROMPT_FILES}
    for source in sources:
        if source.is_dir():
            expected.update(path.name for path in source.iterdir())
    for path in sorted(target.iterdir()):
        if path.is_dir():
            return _("a folder {name} in it", name=path.name)
        if path.name not in expected and not _SHARD.fullmatch(path.name):
            return _("{name} in it", name=path.name)
    return ""


@contextlib.contextmanager
def staged_for(check: Check, notes: list[str]) -> Iterator[Path]:
    """Stage a folder next to the target, after removing the folders of killed runs, with a note on each.

    When the block ends without an error, the folder takes the target's place. If the block wrote a file with
    the target's name into it, that file does.
    """
    target = check()
    notes += _clean_up(target.parent)
    with staging(target) as staged:
        yield staged
        result = staged / target.name
        if not result.is_file():
            result = staged
        _put(result, target, check)


def interrupted_folder(target: Path) -> Path:
    """The folder in which an interrupted run has left its files."""
    return target.with_name(f".{target.name}.{OURS}fusing")


@contextlib.contextmanager
def resumable(check: Check, notes: list[str]) -> Iterator[Path]:
    """Open `.NAME.tuneyard-fusing` next to the target. An interrupted run leaves it for the next to resume.

    It takes the target's place when the block ends without an error, and is removed if the content was wrong.
    `HeldError` while another run uses it.
    """
    target = check()
    folder = interrupted_folder(target)
    make_folder(target.parent)
    with named(target), contextlib.ExitStack() as stack:
        with locked(target.parent):  # no other run may take it for the folder of a killed run
            if folder.is_symlink():  # the folder that a link leads to would be emptied
                raise RequestError(
                    _("{folder}: a link, expected the folder of an interrupted run; remove it", folder=folder)
                )
            stack.enter_context(reserved(folder))
        notes += _clean_up(target.parent)
        try:
            yield folder
            _put(folder, target, check)
        except TuneyardError:
            shutil.rmtree(folder, ignore_errors=True)
            raise


def _put(staged: Path, target: Path, check: Check) -> None:
    """Put a finished folder or file in its place. If `check` no longer allows it, keep it as `NAME-2`."""
    with locked(target.parent):
        try:
            check()
        except RequestError as error:
            kept = free_path(target)
            publish(staged, kept)
            raise RequestError(
                _(
                    "{error}; it appeared while this command ran. The result of the command is kept as "
                    "{kept}",
                    error=error,
                    kept=kept,
                )
            ) from error
        publish(staged, target)


def tensor_lines(specs: Iterable[Spec]) -> list[str]:
    """One line of a plan for each tensor that will be written."""
    return [f"  {name}  {'×'.join(map(str, shape))}  {dtype}" for name, dtype, shape in specs]


def require_space(target: Path, needed: int) -> None:
    """`RequestError` if less than `needed` bytes are free. The folders of killed runs count as free."""
    there = existing(target.parent)
    free = shutil.disk_usage(there).free + sum(map(size_of, abandoned(target.parent, RECOVERABLE)))
    if free < needed:
        raise RequestError(
            _(
                "{target}: needs {needed}, but {there} has {free} free: free some space, or write to "
                "another disk",
                target=target,
                needed=size_words(needed),
                there=there,
                free=size_words(free),
            )
        )


def _clean_up(parent: Path) -> list[str]:
    """Remove the folders of killed runs in `parent`; the result has a note on each."""
    notes: list[str] = []
    with recovered(parent) as dropped:
        for name, size in dropped.items():
            notes.append(
                _("removed {parent}, {size:.2f} GB of a killed run", parent=parent / name, size=size / 1e9)
            )
    return notes


def companions(base: Path) -> list[Path]:
    """The files of a base that a fused model has, too: all but weights, config, card and hidden files.

    `ContentError` for a link out of the folder.
    """
    files = []
    for file in sorted(base.iterdir()):
        is_written = file.suffix in WEIGHT_SUFFIXES or file.name in WRITTEN
        if not is_written and not file.name.startswith(".") and not file.is_dir():
            files.append(own_file(file))
    return files
