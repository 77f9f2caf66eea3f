"""W435: rows that a compile puts into another split than the compile whose place it takes."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.compiler.engine.run import Run
from tuneyard.compiler.spec.model import Output
from tuneyard.compiler.write.record_file import keys_in
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.datasets.compiled import MANIFEST, read_manifest, read_row_index
from tuneyard.core.errors import ContentError, Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import Message, _, counted, joined, marked

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    KeysBySplit = Mapping[str, NDArray[np.uint64]]
    """The fingerprints of the rows of each split."""

MOVED_ROWS = ProblemCode(
    "W435",
    _("rows that were in another split of the earlier compile"),
    _("Split by hash, which keeps each row where it is: `split: {{test: 0.2, by: hash, seed: 1}}`."),
    template=marked("{moves} of the compile of {time}"),
)


def moved_rows(run: Run) -> Iterator[Problem]:
    """Yield the problem of a compile that moves rows of the dataset in its place between splits.

    Rows are compared by what the model reads, so that a corrected answer moves none.
    """
    before = run.job.request.out / run.spec.name
    output = next((output for output in run.spec.outputs if output.dataset is not None), None)
    if run.staged is None or output is None or not (before / MANIFEST).is_file():
        return
    now = _rows_now(run, output)
    moves = _moves(now, _earlier_rows(before, output, now))
    if not moves:
        return
    compiled = datetime.fromtimestamp((before / MANIFEST).stat().st_mtime)
    message = MOVED_ROWS.message(moves=joined(moves), time=f"{compiled:%Y-%m-%d %H:%M}")
    hint = _("split by hash, which keeps each row on its side: `by: hash` and `seed` in `split`")
    if run.spec.split and run.spec.split.by_hash:
        hint = _("the same `seed`, shares and prompt keep each row on its side")
    yield Problem(MOVED_ROWS, run.spec.name, message, "split", hint)


def _rows_now(run: Run, output: Output) -> "KeysBySplit":
    """The fingerprints of the rows that this compile writes for an output, by split."""
    import numpy as np

    keys_by_split = {}
    for split, written_output, file in run.written:
        if written_output == output and file.keys is not None and file.records:
            keys_by_split[split] = np.asarray(keys_in(file.keys))
    return keys_by_split


def _earlier_rows(folder: Path, output: Output, splits: Iterable[str]) -> "KeysBySplit":
    """The fingerprints that the earlier compile wrote for an output, by split: nothing if it is damaged."""
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            return {}
        shares = manifest.definition.get("split") or {}
        keys_by_split = {}
        for split in dict.fromkeys([*splits, TRAIN_SPLIT, *shares]):
            index = read_row_index(folder / output.file_of(split))
            if index is not None:
                keys_by_split[split] = index.fingerprints
    except ContentError:  # the new compile takes its place
        return {}
    return keys_by_split


def _moves(now: "KeysBySplit", earlier: "KeysBySplit") -> list[Message]:
    """Say how many rows of which split were in which other one."""
    import numpy as np

    moves = []
    for split, keys in now.items():
        for earlier_split, earlier_keys in earlier.items():
            if earlier_split == split:
                continue
            is_moved = np.isin(keys, earlier_keys)
            if split in earlier:
                is_moved &= ~np.isin(keys, earlier[split])  # it was in both
            count = int(is_moved.sum())
            if count:
                moves.append(
                    _(
                        "{rows} of {split} were in {earlier}",
                        rows=counted(count, "row", "rows"),
                        split=split,
                        earlier=earlier_split,
                    )
                )
    return moves
