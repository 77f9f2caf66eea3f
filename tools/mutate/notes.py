"""Who enters what, taken down while pytest runs: only tests that enter a function can see an error in it."""

import json
import sys
from collections.abc import Iterator
from functools import _lru_cache_wrapper
from pathlib import Path

import pytest

from tools.mutate.entered import Notes


class Plugin:
    """For pytest: what is entered while a fixture of many tests is made belongs to all that use it."""

    def __init__(self, notes: Notes) -> None:
        self.notes = notes

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Function) -> Iterator[None]:
        """Begin a test, which finds no value that a test before it left in a cache: it computes its own."""
        clear_caches()
        self.notes.write("uses", plain(item.nodeid), item.fixturenames)
        self.notes.about(plain(item.nodeid))
        self.notes.start()
        return (yield)

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[object]) -> Iterator[None]:
        """Begin a fixture, and go back to the test."""
        before = self.notes.test
        if fixturedef.scope != "function":
            self.notes.about(fixturedef.argname)
        try:
            return (yield)
        finally:
            self.notes.about(before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how long it took."""
        self.notes.write("took", plain(report.nodeid), report.duration)


def clear_caches() -> None:
    """Empty the caches of our functions; what functions they call is entered by each test then."""
    ours = [one for name, one in sys.modules.items() if name.startswith("tuneyard.")]
    for value in (value for module in ours for value in vars(module).values()):
        if isinstance(value, _lru_cache_wrapper):
            value.cache_clear()


class Entered:
    """What the notes say: the tests that enter a function, and how long each took in seconds."""

    def __init__(self, path: Path) -> None:
        self.seconds: dict[str, float] = {}
        self._by: dict[tuple[str, int], set[str]] = {}
        self._users: dict[str, set[str]] = {}
        for kind, test, *rest in map(json.loads, path.read_text("utf-8").splitlines()):
            if kind == "took":
                self.seconds[test] = self.seconds.get(test, 0) + rest[0]
            elif kind == "uses":
                for fixture in rest[0]:
                    self._users.setdefault(fixture, set()).add(test)
            elif test:
                self._by.setdefault((rest[0], rest[1]), set()).add(test)

    def tests(self, path: str, first: int | None) -> set[str]:
        """Return the tests that enter the function with this first line, or any of the file if None."""
        who = [by for (file, line), by in self._by.items() if file == path and first in (None, line)]
        names = set().union(*who)
        return names.union(*(self._users.get(one, set()) for one in names)) & self.seconds.keys()


def plain(test: str) -> str:
    """Return a test's id without its parameters, which an error could change."""
    return test.split("[")[0]
