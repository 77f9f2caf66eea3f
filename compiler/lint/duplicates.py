"""Rows compared with rows: ids and rows that came before, conflicts, leaks between splits, near rows.

Near rows are candidates by MinHash (rensa), each verified by its true similarity.
The similarity of two texts is the Jaccard index of their shingles: the runs of three words (a Han
character counts as a word), upper case and punctuation left aside. Candidates come from locality-
sensitive hashing in bands (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter 3), which
misses few pairs above the threshold; none below it is reported.
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from heapq import merge
from itertools import groupby
from typing import Any

from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.matching import matches
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.model import PART
from tuneyard.core.errors import Problem
from tuneyard.core.files import JsonObject
from tuneyard.core.language.han import HAN

THRESHOLD = 0.8
PERMUTATIONS = 64
BANDS = 16
BATCH = 5000
FEWEST = 50  # rows: of fewer, the shares of labels say little
WIDTH = 3
SEED = 42
_MIXER = 0x9E3779B97F4A7C15  # odd, near 2**64 over the golden ratio (Knuth: TAOCP 3, section 6.4)
_WORDS = f"[{HAN}]|[^\\W{HAN}]+"

_ASCII_SIGNS = {code: " " for code in range(128) if chr(code) != "_" and not chr(code).isalnum()}

Twin = tuple[int, int, float]


def warn_of_duplicates(
    splits: dict[str, Fingerprints], group: str | None, problems: Problems, *, near: bool = False
) -> JsonObject:
    """Warn of duplicates, conflicts and leaks, within and between splits. Returns the manifest's `fit`.

    The ids of the rows are forgotten meanwhile: 8 bytes a row less while equal rows are sought.
    """

    def warn(code: str, form: str, twins: Iterable[Any], rows: Fingerprints, others: Fingerprints) -> None:
        """Warn of each (row, row of the others like it) or, for near rows, (row, other row, similarity)."""
        for row, twin, *share in twins:
            problems.warn(Problem(code, rows.place(row), form.format(others.place(twin), *share)))

    filled_splits = {split: rows for split, rows in splits.items() if rows.rows}
    report: JsonObject = {split: rows.summary() for split, rows in filled_splits.items()}
    # Splits of one file share its columns: the ids go when no split asks for them any more.
    repeated_ids = {split: seen.repeated_ids() for split, seen in filled_splits.items()}
    for split, seen in filled_splits.items():
        seen.forget("ids")
        same, conflicts = seen.repeats()
        warn("W201", "the same id as in {}", repeated_ids[split], seen, seen)
        warn("W202", "the same row as in {}; `drop_duplicates: true` in the spec drops it", same, seen, seen)
        warn("W203", "the same input as in {}, another answer", conflicts, seen, seen)
        if near:
            warn("W212", "nearly the same as {} ({:.2f})", near_rows(seen.texts), seen, seen)
    first = PART if PART in filled_splits else next(iter(filled_splits), "")
    for other, test in filled_splits.items():
        if other == first:
            continue
        train = filled_splits[first]
        same_inputs = matches(train.column("prompts"), test.column("prompts"))
        warn(
            "W208",
            f"the same input is also in {other} ({{}}); `drop_leaks: true` in the spec drops it",
            same_inputs,
            train,
            test,
        )
        if near:
            form = f"nearly the same input is also in {other} ({{}}; {{:.2f}})"
            warn("W213", form, near_rows(train.texts, test.texts), train, test)
        if group:
            same_groups = matches(train.column("groups"), test.column("groups"))
            report[f"{group} shared by {first} and {other}"] = len({row for _, row in same_groups})
    return report


def imbalance(counts: Mapping[str, int], labels: Collection[str]) -> str:
    """The shares of labels that are far out of balance, "" for others and for fewer than 50 rows.

    That is one label over 90 %, or another under a tenth of an equal share (of three labels: under 3.3 %).
    Always giving the most common answer is then hard to beat, and a model learns little else.
    """
    total = sum(counts.values())
    if total < FEWEST or len(labels) < 2:
        return ""
    by_size = sorted(labels, key=lambda label: -counts.get(label, 0))
    most, least = counts.get(by_size[0], 0), counts.get(by_size[-1], 0)
    if least * len(labels) * 10 >= total and most <= 0.9 * total:
        return ""
    return ", ".join(f"{label} {counts.get(label, 0) / total:.1%}".replace("%", " %") for label in by_size)


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


def near_rows(texts: Sequence[str], others: Sequence[str] | None = None) -> Iterator[Twin]:
    """Yield (row, first near row of `others`, similarity). Without `others` the near row is an earlier one.

    Equal texts are not near, since each text is looked at once. Memory: about 600 bytes a row.
    """
    import numpy as np

    candidates = texts if others is None else others
    alone = int(others is None)  # then a text is in its own bands
    number_by_text: dict[str, int] = {}
    places = np.array([number_by_text.setdefault(text, len(number_by_text)) for text in candidates], np.intp)
    rows = np.unique(places, return_index=True)[1]
    bands = _bands(list(number_by_text))
    bands_of_texts = None if others is None else _bands(texts)
    begins, ends = np.empty((2, BANDS, len(texts)), np.uint32)
    shared = np.zeros(len(texts), bool)
    orders = []
    for number, band in enumerate(bands):
        order = band.argsort(kind="stable")
        hashes = band[places] if bands_of_texts is None else bands_of_texts[number]
        begins[number] = np.searchsorted(band, hashes, "left", order)
        ends[number] = np.searchsorted(band, hashes, "right", order)
        shared |= ends[number] - begins[number] > alone
        orders.append(memoryview(rows[order].astype(np.uint32)))
    for row in np.flatnonzero(shared).tolist():
        spans = zip(orders, begins[:, row].tolist(), ends[:, row].tolist(), strict=True)
        runs = [order[begin:end] for order, begin, end in spans if end - begin > alone]
        for twin, _ in groupby(merge(*runs)):
            if others is None and twin >= row:
                break
            if texts[row] == candidates[twin]:
                continue
            share = similarity(texts[row], candidates[twin])
            if share >= THRESHOLD:
                yield row, twin, share
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
