"""python -m tools.bench.near [ROWS]: near leaks and duplicates, rensa beside datasketch.

Seconds are CPU seconds of one run each, MB the peak of the process so far; datasketch (installed on demand)
gets a twentieth of the rows, and no time to verify what it finds.
"""

import random
import resource
import sys
import time
from collections.abc import Callable, Iterable

from tests.peers import installed
from tuneyard.compiler.lint.duplicates import PERMUTATIONS, THRESHOLD, near_rows, shingles

DEV = 10_000


def main(rows: int) -> None:
    """Make texts, one in fifty near another; look for near ones in both ways, and by datasketch."""
    train = made(rows)
    dev = [text + " indeed" for text in train[:: max(1, rows // DEV)]]
    part = train[: rows // 20]
    sys.path.insert(0, str(installed("datasketch", "datasketch")))
    print(f"{'texts':52}{peak():8.0f} MB")
    measured(f"near leaks, {rows} rows against {len(dev)}", lambda: near_rows(train, dev))
    measured(f"near duplicates in {rows} rows", lambda: near_rows(train))
    ours = measured(f"near leaks, {len(part)} rows", lambda: near_rows(part, dev))
    theirs = measured(f"near leaks, {len(part)} rows, datasketch", lambda: by_datasketch(part, dev))
    print(f"{ours / theirs:.2f} x the time of datasketch")


def made(rows: int) -> list[str]:
    """Return texts of 25 words, each fiftieth nearly the one before it."""
    draw = random.Random(1)
    words = [f"w{number}" for number in range(20_000)]
    texts: list[str] = []
    for number in range(rows):
        chosen = texts[-1].split() if number % 50 == 49 else draw.choices(words, k=25)
        texts.append(" ".join([*chosen[:24], words[number % len(words)]]))
    return texts


def by_datasketch(texts: list[str], others: list[str]) -> list[int]:
    """Return the rows that have a candidate, unverified, by datasketch's MinHash."""
    from datasketch import MinHash, MinHashLSH

    def hashed(text: str) -> MinHash:
        sketch = MinHash(PERMUTATIONS)
        sketch.update_batch([shingle.encode() for shingle in shingles(text)])
        return sketch

    index = MinHashLSH(THRESHOLD, PERMUTATIONS)
    for row, text in enumerate(others):
        index.insert(row, hashed(text))
    return [row for row, text in enumerate(texts) if index.query(hashed(text))]


def measured(what: str, call: Callable[[], Iterable[object]]) -> float:
    """Run to the end; print and return the CPU seconds, print how many were found and the peak so far."""
    start = time.process_time()
    found = sum(1 for _ in call())
    seconds = time.process_time() - start
    print(f"{what:52}{peak():8.0f} MB {seconds:6.1f} s  found {found}", flush=True)
    return seconds


def peak() -> float:
    """Return the most MB that this process has held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 392_702)
