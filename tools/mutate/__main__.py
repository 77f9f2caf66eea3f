"""python -m tools.mutate [PATTERN…]: put errors into the code, one by one, and count those that tests see.

Run it after a change of tests, or for a new module with its pattern ('recipes/costs/*'). It draws as many
errors from each package, and runs the tests of the package against each, until one fails. Errors that change
nothing anybody could see are in equivalent.yaml with the reason. It works in a copy of the checkout. An
interrupted run resumes, unless a file has changed since.
"""

import argparse
import fnmatch
import hashlib
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import yaml

from tools.mutate.found import Found, checkout
from tools.mutate.mutants import Mutant, mutants
from tools.mutate.sandbox import ROOT, TESTS, Sandbox, package_of, tracked

NOT = (
    "*/__main__.py", "*/cli.py", "*/options.py", "core/cli/*", "eval/chat.py", "eval/nli.py", "eval/suite.py",
    "eval/text.py",
)  # fmt: skip
"""Command lines: tests of their options take a process each."""
EQUIVALENT = Path(__file__).with_name("equivalent.yaml")
ENOUGH, ENOUGH_OF_ONE = 0.90, 0.80
"""Shares of the errors that tests must see: of all, and of those in one package."""


def main() -> int:
    """Judge a sample of each package, print what survived; exit 1 if tests see too few."""
    parser = argparse.ArgumentParser(prog="python -m tools.mutate", description=__doc__)
    parser.add_argument("patterns", nargs="*", default=["*.py"], help="files to put errors into")
    parser.add_argument("--count", type=int, default=60, help="of each package")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--out", type=Path, default=ROOT / "build/mutate.jsonl")
    options = parser.parse_args()
    sample = drawn(options.patterns, options.count, options.seed)
    results = Found(options.out, checkout(ROOT, tracked()))
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        judge(sample, Sandbox(Path(folder)), results)
    return report(sample, results)


def drawn(patterns: list[str], count: int, seed: int) -> list[Mutant]:
    """Draw errors of each package, each by itself: a change of other code draws no other errors."""
    by_package: dict[str, list[Mutant]] = defaultdict(list)
    for path in tracked():
        in_scope = (
            path.endswith(".py")
            and package_of(path) in TESTS
            and not any(fnmatch.fnmatch(path, one) for one in NOT)
        )
        if in_scope and any(fnmatch.fnmatch(path, one) for one in patterns):
            by_package[package_of(path)] += mutants(path, (ROOT / path).read_bytes())
    equivalent = equivalent_keys()
    sample = []
    for package, errors in sorted(by_package.items()):
        lots = sorted(errors, key=lambda one: hashlib.sha256(repr((seed, one.key())).encode()).digest())
        kept = [one for one in lots[:count] if one.key() not in equivalent]
        listed = len(lots[:count]) - len(kept)
        print(
            f"{package}: {len(kept)} of {len(errors)} errors, without {listed} that change nothing",
            flush=True,
        )
        sample += kept
    return sample


def equivalent_keys() -> set[tuple[str, str, int, str]]:
    """The keys of the errors that change nothing. An entry whose line is gone ends the program."""
    keys = set()
    for one in yaml.safe_load(EQUIVALENT.read_bytes()):
        path, key = ROOT / one["file"], (one["file"], one["line"], one["column"], one["change"])
        errors = mutants(one["file"], path.read_bytes()) if path.is_file() else []
        if key not in {error.key() for error in errors}:
            sys.exit(f"{EQUIVALENT}: {one['file']} has no {one['change']} in {one['line']}; delete the entry")
        keys.add(key)
    return keys


def judge(sample: list[Mutant], sandbox: Sandbox, results: Found) -> None:
    """Judge each error that has no result yet."""
    for number, one in enumerate(sample, 1):
        if one.key() in results.by_key:
            continue
        if package_of(one.path) not in sandbox.seconds:
            sandbox.begin(package_of(one.path))
        clock = time.monotonic()
        results.add(one.key(), sandbox.judge(one), sandbox.failed())
        seconds = round(time.monotonic() - clock, 1)
        print(
            f"{number}/{len(sample)} {one.path}:{one.start[0]} {one.change()}: "
            f"{results.by_key[one.key()]}, {seconds} s",
            flush=True,
        )


def report(sample: list[Mutant], results: Found) -> int:
    """Print the errors that no test saw and the shares of those that one saw; 1 if a share is too small."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in sample:
        outcome = results.by_key[one.key()]
        counts[package_of(one.path)][outcome] += 1
        counts["all"][outcome] += 1
        if outcome == "survived":
            print(f"survived: {one.path}:{one.start[0]}: {one.change()}   in   {one.line}")
    is_enough = True
    for package, became in counts.items():
        share = 1 - became["survived"] / became.total()
        is_enough = is_enough and share >= (ENOUGH if package == "all" else ENOUGH_OF_ONE)
        print(f"{package}: {share:.1%} of {became.total()} killed: {dict(became)}")
    return int(not is_enough)


if __name__ == "__main__":
    sys.exit(main())
