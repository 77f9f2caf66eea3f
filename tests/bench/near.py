"""python -m tests.bench.near [ROWS]: near leaks and duplicates, rensa beside datasketch."""

import random
import resource
import sys
import time
from collections.abc import Callable, Iterable

from compiler.near import PERMUTATIONS, THRESHOLD, near_repeats, near_rows, shingles

DEV = 10_000


def main(rows: int) -> None:
    """Make texts, one in fifty near another; look for near ones in both ways; print CPU seconds."""
    texts = made(rows)
    dev = texts[:: max(1, rows // DEV)]
    train = [text + " indeed" for text in texts]
    leaks = measured(f"near leaks, {rows} rows against {len(dev)}", lambda: near_rows(train, dev))
    repeats = measured(f"near duplicates in {rows} rows", lambda: near_repeats(texts))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"found {leaks[1]} and {repeats[1]}; peak memory {peak:.0f} MB")
    try:
        import datasketch  # noqa: F401
    except ImportError:
        print("datasketch is not installed: nothing to compare with")
        return
    part = train[: rows // 20]
    ours = measured(f"near leaks, {len(part)} rows", lambda: near_rows(part, dev))
    theirs = measured(f"datasketch, {len(part)} rows", lambda: by_datasketch(part, dev))
    print(f"rensa / datasketch: {ours[0] / theirs[0]:.2f} (CPU seconds; found {ours[1]} and {theirs[1]})")


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


def measured(what: str, call: Callable[[], Iterable[object]]) -> tuple[float, int]:
    """Run to the end, print wall clock and CPU seconds, return the CPU seconds and how many were found."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = sum(1 for _ in call())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{what}: {wall:.1f} s, {cpu:.1f} CPU s", flush=True)
    return cpu, found


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 392_702)
