"""Temporary folders of a command. Those of a command that was killed are removed by the next one.

`kill -9` and timeouts leave a temporary folder behind, which may have a copy of a database of many gigabytes.
"""

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tuneyard.core.files import AT_ONCE, OURS, locked

_NAME = re.compile(rf"{OURS}[0-9a-f]{{16}}")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new locked folder in TMPDIR that only this user can read. It is removed in the end."""
    parent = Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    with contextlib.ExitStack() as stack:
        folder = None
        while folder is None:
            folder = _new_folder(parent, stack)
        yield folder


def _new_folder(parent: Path, stack: contextlib.ExitStack) -> Path | None:
    """Make a folder, and lock it until `stack` ends. None if another command removed it before the lock."""
    folder = parent / f"{OURS}{secrets.token_hex(8)}"
    folder.mkdir(mode=0o700)
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        stack.enter_context(locked(folder))
    return folder if folder.exists() else None


def _remove_abandoned(parent: Path) -> None:
    """Remove this user's temporary folders whose command has ended. Links and folders of others stay."""
    for entry in os.scandir(parent):
        if not _NAME.fullmatch(entry.name) or not entry.is_dir(follow_symlinks=False):
            continue
        with contextlib.suppress(FileNotFoundError, BlockingIOError):
            if entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                with locked(Path(entry.path), how=AT_ONCE):
                    shutil.rmtree(entry.path, ignore_errors=True)
