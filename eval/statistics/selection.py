"""Two halves of the rows: one to choose a model on, one to report."""

import hashlib
from collections.abc import Sequence

from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _

Split = tuple[list[int], list[int]]


def split_halves(keys: Sequence[str], seed: int, place: str) -> Split:
    """Rows to choose on and rows to report, by a hash of each row's key: its cluster or question.

    The halves are the same in every run and for every model. Rows of one key stay together. `ContentError` if
    a half has less than two rows.
    """
    halves: Split = ([], [])
    for row, key in enumerate(keys):
        digest = hashlib.sha256(f"{seed} {key}".encode()).digest()
        halves[digest[0] % 2].append(row)
    if min(map(len, halves)) < 2:
        raise ContentError(
            _(
                "{place}: {number} rows: too few to choose on one half and report on the other; add rows",
                place=place,
                number=len(keys),
            )
        )
    return halves
