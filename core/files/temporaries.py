"""Hidden files and folders that a command writes before they take their target's place, and their locks.

A temporary lies next to its target as `.NAME.tuneyard-` and 16 hex digits. Its writer holds a lock on it,
flock(2), which ends with the process: a temporary without a lock is of a killed command. Every command
removes those of a folder when it begins to write there. No lock has a file of its own.
"""

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tuneyard.core.language.message import _
from tuneyard.core.language.messages import warn_once

OURS = "tuneyard-"
TEMPORARY = re.compile(rf"\..+\.{OURS}[0-9a-f]{{16}}", re.DOTALL)
"""The hidden names that any command removes if their writer is dead. A user gives no file such a name."""
AT_ONCE = fcntl.LOCK_EX | fcntl.LOCK_NB
"""A lock that does not wait for another process."""
_NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""Errors of flock(2) on a file system without locks. NFS locks no folder: it answers EBADF."""
_LONGEST_NAME = 255  # bytes, on every usual file system


def temporary_prefix(target: Path) -> str:
    """What the hidden names for a target begin with: `.NAME.`, cut so that the whole name is not too long."""
    room = _LONGEST_NAME - len(f"..{OURS}") - 16
    name = target.name.encode(errors="surrogateescape")[:room].decode(errors="ignore")
    return f".{name}."


def _temporary_path(target: Path) -> Path:
    return target.with_name(f"{temporary_prefix(target)}{OURS}{secrets.token_hex(8)}")


@contextlib.contextmanager
def locked(folder: Path, *, how: int = fcntl.LOCK_EX) -> Iterator[int]:
    """Hold an exclusive lock on a folder. Yields the folder's descriptor.

    `BlockingIOError` with `AT_ONCE` if another process has the lock. Without locks there is a warning.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not _lock(handle, how):
            warn_once(
                _(
                    "{folder}: its file system has no locks (flock), which keep commands apart; run one "
                    "at a time there, and remove .*.{ours}* after a kill",
                    folder=folder,
                    ours=OURS,
                )
            )
        yield handle
    finally:
        os.close(handle)


def _lock(handle: int, how: int) -> bool:
    """Lock an open file or folder. False if its file system has no locks."""
    try:
        fcntl.flock(handle, how)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


@contextlib.contextmanager
def temporary_file(target: Path) -> Iterator[tuple[Path, BinaryIO]]:
    """Yield the path of a new locked temporary file for a target, and the file. It is removed in the end."""
    while True:
        path = _temporary_path(target)
        with path.open("xb") as file, contextlib.ExitStack() as stack:
            stack.callback(path.unlink, missing_ok=True)
            _lock(file.fileno(), fcntl.LOCK_EX)
            if _leads_to(path, file.fileno()):
                yield path, file
                return


@contextlib.contextmanager
def temporary_folder(target: Path) -> Iterator[Path]:
    """Yield a new locked temporary folder for a target. It is removed in the end."""
    with locked_folder(lambda: _temporary_path(target)) as folder:
        yield folder


@contextlib.contextmanager
def locked_folder(new_path: Callable[[], Path], mode: int = 0o777) -> Iterator[Path]:
    """Make a folder at a new path, and lock it until it is removed in the end.

    Another command may find the folder before it is locked, and remove it. Then it is made anew.
    """
    while True:
        folder = new_path()
        folder.mkdir(mode=mode)
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            try:
                handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                continue
            stack.callback(os.close, handle)
            _lock(handle, fcntl.LOCK_EX)
            if _leads_to(folder, handle):
                yield folder
                return


def _leads_to(path: Path, handle: int) -> bool:
    """True if a path is still that of the open file or folder: nobody has removed it before the lock."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(status, os.fstat(handle))


def abandoned(folder: Path, pattern: re.Pattern[str] = TEMPORARY) -> Iterator[Path]:
    """Yield files and folders with hidden names of ours whose writer is dead. Each stays locked in its turn.

    Links, and what this user cannot open, are left out. So is everything if there are no locks.
    """
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if pattern.fullmatch(entry.name))
    except OSError:  # missing, or not to be listed; whoever writes there gets the error
        return
    for name in names:
        path = folder / name
        handle = None
        try:
            handle = _open_unlocked(path)
            if handle is not None:
                yield path
        finally:
            if handle is not None:
                os.close(handle)


def _open_unlocked(path: Path) -> int | None:
    """Open and lock a temporary that no process has locked; None for any other."""
    with contextlib.suppress(OSError):  # it is gone, or of another user
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode):
            how = os.O_RDONLY | os.O_DIRECTORY
        elif stat.S_ISREG(mode):
            how = os.O_RDWR  # which NFS needs for a lock
        else:
            return None
        handle = os.open(path, how | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            if _lock(handle, AT_ONCE) and _leads_to(path, handle):
                return handle
        except BlockingIOError:  # its writer lives
            pass
        os.close(handle)
    return None


def sweep(folder: Path, pattern: re.Pattern[str] = TEMPORARY) -> dict[str, int]:
    """Remove what killed commands left in a folder; {name: bytes} of what is gone.

    What cannot be removed stays: an error of the system concerns the command's own files first.
    """
    removed = {}
    for path in abandoned(folder, pattern):
        size = size_of(path)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                path.unlink()
        if not path.exists():
            removed[path.name] = size
    return removed


def size_of(path: Path) -> int:
    """Size of a file, or of all files in a folder, in bytes, without what goes meanwhile."""
    paths = [str(path)]
    for folder, _unused, names in os.walk(
        path
    ):  # unlike Path.rglob, it takes a folder that goes for an empty one
        paths += [os.path.join(folder, name) for name in names]  # noqa: PTH118  # as os.walk gives them
    size = 0
    for each in paths:
        with contextlib.suppress(OSError):
            status = os.lstat(each)
            if stat.S_ISREG(status.st_mode):
                size += status.st_size
    return size


def remove_folder(folder: Path) -> None:
    """Delete a folder, also if another command deletes it at the same time."""
    while folder.exists():
        with contextlib.suppress(FileNotFoundError):  # the other one was faster at a file
            shutil.rmtree(folder)
