"""python -m tools.mutate [PATTERN…]: put errors into the code, one by one, and count those that tests see.

Errors that change nothing anybody could see stand in equivalent.yaml with the reason. Runs in a copy of the
checkout, so that the one you work in stays as it is. A run that was ended goes on where it was, unless a file
has changed since.
"""

import argparse
import fnmatch
import hashlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import yaml

from tools.mutate.found import Found, checkout
from tools.mutate.mutants import Mutant, mutants
from tools.mutate.sandbox import ROOT, Sandbox, tracked

SCOPE = [
    "core/*.py", "compiler/*.py", "eval/dialogue.py", "eval/metrics/*.py",
    "eval/judge/same_rows.py", "eval/judge/sections.py", "eval/judge/conclusions.py",
    "eval/read/scored_run.py", "eval/statistics/*.py",
    "adapters/delta.py", "adapters/lowrank.py", "adapters/merge.py",
    "adapters/methods/*.py", "adapters/store.py", "adapters/weighted.py", "adapters/compatibility.py",
]  # fmt: skip
NOT = (
    "*/__main__.py",
    "compiler/cli.py",
    "core/documents/schema_errors.py",
    "compiler/read/hub.py",
    "compiler/progress.py",
    "compiler/init/*",
    "compiler/verify/*",
)
Key = tuple[str, str, int, str]  # file, line, column and change: Mutant.key
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
ENOUGH = 0.95


def main() -> int:
    """Run a sample and print what survived; 1 where less than 95 % were killed."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutate", description=__doc__)
    parser.add_argument("patterns", nargs="*", default=SCOPE, help="files to put errors into")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, default=ROOT / "build/mutate.jsonl")
    given = parser.parse_args()
    every = [one for path in _files(given.patterns) for one in mutants(path, (ROOT / path).read_bytes())]
    drawn = sorted(every, key=lambda one: _lot(one, given.seed))[: given.count]
    listed = yaml.safe_load(EQUIVALENT.read_bytes())
    known = {(one["file"], one["line"], one["column"], one["change"]) for one in listed}
    _check_listed(known, {one.key() for one in every}, given.patterns)
    sample = [one for one in drawn if one.key() not in known]
    print(f"{len(drawn)} of {len(every)} errors, {len(drawn) - len(sample)} of them equivalent", flush=True)
    found = Found(given.out, checkout(ROOT, tracked()))
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        _judge(sample, Sandbox(Path(folder)), found)
    counts = Counter(found.by_key[one.key()] for one in sample)
    for one in (one for one in sample if found.by_key[one.key()] == "survived"):
        print(f"survived: {one.path}:{one.start[0]}: {one.change()}   in   {one.line}")
    killed = 1 - counts["survived"] / max(1, len(sample))
    print(f"{killed:.1%} of {len(sample)} killed: {dict(counts)}")
    return int(killed < ENOUGH)


def _check_listed(listed: set[Key], possible: set[Key], patterns: list[str]) -> None:
    """End the run if an entry of equivalent.yaml is of a line that has changed since: it excuses nothing."""
    files = set(_files(patterns))
    stale = sorted(key for key in listed - possible if key[0] in files)
    if stale:
        lines = "\n".join(f"{path}: {line}: {change}" for path, line, _, change in stale)
        sys.exit(f"{EQUIVALENT.name}: no such error; delete the entry or write its line anew:\n{lines}")


def _files(patterns: list[str]) -> list[str]:
    return [
        path
        for path in tracked()
        if any(fnmatch.fnmatch(path, one) for one in patterns)
        and not any(fnmatch.fnmatch(path, one) for one in NOT)
    ]


def _lot(one: Mutant, seed: int) -> bytes:
    """Return what an error is drawn by: itself, so that a change of other code draws no other errors."""
    return hashlib.sha256(repr((seed, one.key())).encode()).digest()


def _judge(sample: list[Mutant], sandbox: Sandbox, found: Found) -> None:
    """Find out what becomes of each error that is not in `found`; ends where tests fail without one."""
    if found.begun:
        shutil.copy2(found.notes, sandbox.notes)
    elif (became := sandbox.record()) == "survived":
        found.begin(sandbox.notes)
    else:
        sys.exit(f"the tests fail without any error ({became}):\n{sandbox.log.read_text('utf-8')[-3000:]}")
    left = [one for one in sample if one.key() not in found.by_key]
    print(f"{len(left)} of {len(sample)} to be judged", flush=True)
    for number, one in enumerate(left, 1):
        clock = time.monotonic()
        became = sandbox.judge(one)
        found.add(one.key(), became, sandbox.failed())
        place, seconds = f"{one.path}:{one.start[0]}", round(time.monotonic() - clock, 1)
        print(f"{number}/{len(left)} {place} {one.change()}: {became}, {seconds} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
