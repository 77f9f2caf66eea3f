"""The folder of a comparison: a killed command leaves the old files or the new ones, never some of both.

All files are written into a hidden folder of OUT first. A rename makes that folder the journal, whose files
are then moved to their places. The next comparison finishes a journal that a killed command left.
"""

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from tuneyard.core.errors import RequestError
from tuneyard.core.files import make_folder, recovered, staging, sync, write_bytes
from tuneyard.core.files.links import refuse_written_link
from tuneyard.core.files.temporaries import locked
from tuneyard.core.language.message import _
from tuneyard.eval.runs.results import (
    COMPARED,
    TABLE_JSON,
    is_unfinished_comparison,
    remove_files,
    replaced_files,
)

JOURNAL = ".comparison.tuneyard-files"
"""Hidden folder of OUT with the files that are still to be moved."""


def refuse_links(out: Path, names: Iterable[str]) -> None:
    """`RequestError` if a file of these names, or a folder below OUT that it is in, is a link."""
    for name in names:
        path = out / name
        while path != out:
            refuse_written_link(path)
            path = path.parent


def publish_comparison(out: Path, files: Mapping[str, bytes]) -> None:
    """Replace the comparison in OUT by these files, each with its path below OUT. table.json comes last."""
    make_folder(out)
    finish_comparison(out)
    with staging(out / "comparison") as staged:
        for name, content in files.items():
            write_bytes(staged / name, content)
        with locked(out):
            _finish(out)  # of a command that was killed since this one began
            if is_unfinished_comparison(out):
                remove_files(out, COMPARED)  # the report, by which it is one, goes last
            staged.rename(out / JOURNAL)
            sync(out)
            _finish(out)


def finish_comparison(out: Path) -> None:
    """Finish the comparison that a killed command began to move into OUT, and remove what others staged."""
    with recovered(out):
        _finish(out)


def _finish(out: Path) -> None:
    """Remove the old comparison, table.json last, then move the files of the journal, table.json last.

    No file is moved before the old table.json is gone: without it the removal is complete.
    """
    journal = out / JOURNAL
    if journal.is_symlink() or (journal.exists() and not journal.is_dir()):
        raise RequestError(
            _("{path}: found a link or a file, expected a folder of Tuneyard; remove it", path=journal)
        )
    if (journal / TABLE_JSON).is_file():
        names = [str(path.relative_to(journal)) for path in sorted(journal.rglob("*")) if path.is_file()]
        names.remove(TABLE_JSON)
        names.append(TABLE_JSON)
        refuse_links(out, names)
        old_names = replaced_files(out, [], force=True)
        remove_files(out, [name for name in old_names if name != TABLE_JSON])
        remove_files(out, [TABLE_JSON])
        for name in names:
            make_folder((out / name).parent)
            (journal / name).replace(out / name)
        sync(out)
    if journal.exists():
        shutil.rmtree(journal)
