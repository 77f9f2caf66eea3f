"""W212 and W213: rows that are nearly equal, with `fit: near` in a spec.

Near rows are candidates by MinHash (rensa), each verified by its true similarity.
The similarity of two texts is the Jaccard index of their shingles: the runs of three words (a Han
character counts as a word), upper case and punctuation left aside. Candidates come from locality-
sensitive hashing in bands (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter 3), which
misses few pairs above the threshold; none below it is reported.
"""

import re
from collections.abc import Iterator, Sequence
from heapq import merge
from itertools import groupby
from typing import Any

from tuneyard.compiler.lint import Splits, split_lint
from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.han import HAN
from tuneyard.core.language.message import _, marked

NEAR_ROW = ProblemCode(
    "W212",
    _("a row that is nearly the same as one before it"),
    _("Decide whether both rows should stay."),
    _("With `fit: near`: 0.80 or more of their three-word sequences are common."),
    template=marked("nearly the same as {place} ({similarity:.2f})"),
)
NEAR_LEAK = ProblemCode(
    "W213",
    _("a training input that nearly stands in another split"),
    _("Delete one of both."),
    _("As W212."),
    template=marked("nearly the same input is also in {split} ({place}; {similarity:.2f})"),
)
THRESHOLD = 0.8
PERMUTATIONS = 64
BANDS = 16
BATCH = 5000
WIDTH = 3
SEED = 42
_MIXER = 0x9E3779B97F4A7C15  # odd, near 2**64 over the golden ratio (Knuth: TAOCP 3, section 6.4)
_WORDS = f"[{HAN}]|[^\\W{HAN}]+"

_ASCII_SIGNS = {code: " " for code in range(128) if chr(code) != "_" and not chr(code).isalnum()}

NearPair = tuple[int, int, float]


@split_lint(NEAR_ROW, NEAR_LEAK)
def near_duplicates(splits: Splits) -> Iterator[Problem]:
    """Yield rows that are near to an earlier row of their split, or to a row of another split."""
    if not splits.spec.near:
        return
    for rows in splits.rows.values():
        for row, near_row, share in near_rows(rows.texts):
            message = NEAR_ROW.message(place=rows.location(near_row), similarity=share)
            yield Problem(NEAR_ROW, rows.location(row), message)
    for training, name, others in splits.pairs():
        for row, near_row, share in near_rows(training.texts, others.texts):
            message = NEAR_LEAK.message(split=name, place=others.location(near_row), similarity=share)
            yield Problem(NEAR_LEAK, training.location(row), message)


def shingles(text: str) -> list[str]:
    """The runs of three words in a text. A shorter text is one run."""
    text = text.lower()
    words = text.translate(_ASCII_SIGNS).split() if text.isascii() else re.findall(_WORDS, text)
    if len(words) <= WIDTH:
        return [" ".join(words)]
    return list(map(" ".join, zip(words, words[1:], words[2:], strict=False)))


def similarity(one: str, other: str) -> float:
    """The Jaccard index of the shingles of two texts, 0 to 1."""
    first, second = set(shingles(one)), set(shingles(other))
    return len(first & second) / len(first | second)


def near_rows(texts: Sequence[str], others: Sequence[str] | None = None) -> Iterator[NearPair]:
    """Yield (row, first near row of `others`, similarity). Without `others` the near row is an earlier one.

    Equal texts are not near, since each text is looked at once. Memory: about 600 bytes a row.
    """
    import numpy as np

    candidates = texts if others is None else others
    alone = int(others is None)  # then a text is in its own bands
    number_by_text: dict[str, int] = {}
    text_numbers = np.array(
        [number_by_text.setdefault(text, len(number_by_text)) for text in candidates], np.intp
    )
    rows = np.unique(text_numbers, return_index=True)[1]
    bands = _bands(list(number_by_text))
    bands_of_texts = None if others is None else _bands(texts)
    begins, ends = np.empty((2, BANDS, len(texts)), np.uint32)
    shared = np.zeros(len(texts), bool)
    orders = []
    for number, band in enumerate(bands):
        order = band.argsort(kind="stable")
        hashes = band[text_numbers] if bands_of_texts is None else bands_of_texts[number]
        begins[number] = np.searchsorted(band, hashes, "left", order)
        ends[number] = np.searchsorted(band, hashes, "right", order)
        shared |= ends[number] - begins[number] > alone
        orders.append(memoryview(rows[order].astype(np.uint32)))
    for row in np.flatnonzero(shared).tolist():
        spans = zip(orders, begins[:, row].tolist(), ends[:, row].tolist(), strict=True)
        runs = [order[begin:end] for order, begin, end in spans if end - begin > alone]
        for near_row, _unused in groupby(merge(*runs)):
            if others is None and near_row >= row:
                break
            if texts[row] == candidates[near_row]:
                continue
            share = similarity(texts[row], candidates[near_row])
            if share >= THRESHOLD:
                yield row, near_row, share
                break


def _bands(texts: Sequence[str]) -> Any:
    """A hash of each text (columns) in each band (rows). Texts that share a hash are candidates."""
    import numpy as np
    from rensa import RMinHash

    mixers = np.array([pow(_MIXER, power, 1 << 64) for power in range(PERMUTATIONS // BANDS)], np.uint64)
    bands = np.empty((BANDS, len(texts)), np.uint64)
    for start in range(0, len(texts), BATCH):
        block = list(map(shingles, texts[start : start + BATCH]))
        signatures = np.array(RMinHash.digests_from_token_sets(block, PERMUTATIONS, SEED), np.uint64)
        mixed = signatures.reshape(len(block), BANDS, -1) * mixers
        bands[:, start : start + len(block)] = mixed.sum(axis=2).T
    return bands
