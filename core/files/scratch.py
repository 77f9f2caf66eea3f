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

from tuneyard.core.files.temporaries import OURS, abandoned, locked_folder

_NAME = re.compile(rf"{OURS}[0-9a-f]{{16}}")


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield a new locked folder in TMPDIR that only this user can read. It is removed in the end."""
    parent = Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    with locked_folder(lambda: parent / f"{OURS}{secrets.token_hex(8)}", mode=0o700) as folder:
        yield folder


def _remove_abandoned(parent: Path) -> None:
    """Remove this user's temporary folders whose command has ended. Links and files stay."""
    for path in abandoned(parent, _NAME):
        if path.is_dir() and path.stat().st_uid == os.geteuid():
            shutil.rmtree(path, ignore_errors=True)
