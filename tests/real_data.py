"""Real data for tests, which skip without it; how many did is one line at the end of a run."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from testing.real_data import DATA, find

MARK = "real data: "
"""Every reason of such a skip begins with it, then comes the variable."""


def real_path(name: str, variable: str = DATA) -> Path:
    """A file or folder of the real data. Skips the test if it is missing."""
    path = find(variable, name)
    if path is None:
        pytest.skip(f"{MARK}{variable} has no {name}")
    return path


def line_of_skipped(reasons: Iterable[str]) -> str:
    """How many tests of real data were skipped, and what to set; "" if none was."""
    variables = [reason.partition(MARK)[2].split()[0] for reason in reasons if MARK in reason]
    if not variables:
        return ""
    tests = "1 test of real data was" if len(variables) == 1 else f"{len(variables)} tests of real data were"
    return f"{tests} skipped: set {' and '.join(sorted(set(variables)))} (see CONTRIBUTING.md)"
