"""Files that a program here makes of the code: it writes them, or with `--check` compares what is there."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from testing import ROOT
from tuneyard.core.files import write_text


def write_or_check(program: str, texts: Mapping[Path, str]) -> int:
    """Write the texts. With `--check` on the command line: list those that differ, exit code 1."""
    parser = argparse.ArgumentParser(f"python -m {program}")
    parser.add_argument("--check", action="store_true", help="Write nothing; list the files to be written.")
    if not parser.parse_args().check:
        for path, text in texts.items():
            write_text(path, text)
        return 0
    stale = [path for path, text in texts.items() if path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path.relative_to(ROOT)} is not current: run python -m {program}", file=sys.stderr)
    return bool(stale)
