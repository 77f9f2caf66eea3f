"""How the workers of pytest-xdist share the tests, and what becomes of the tests of one that dies."""

import pytest

from tests.conftest import ROOT

pytest_plugins = ("pytester",)
FILE = """
import os
import pytest

@pytest.mark.parametrize("number", range(4))
def test_one(number):
    if os.environ["KILLER"] == f"{os.path.basename(__file__)} {number}":
        os._exit(9)
"""


@pytest.mark.slow
@pytest.mark.parametrize("killer", ["test_a.py 0", "test_d.py 3"])
def test_a_run_ends_without_the_one_test_that_kills_its_worker(pytester, monkeypatch, killer):
    """The worker has finished files before, or not; it has more tests of the file, or not."""
    pytester.makeconftest("from tests.conftest import pytest_xdist_make_scheduler")
    pytester.makepyfile(**dict.fromkeys(("test_a", "test_b", "test_c", "test_d"), FILE))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("KILLER", killer)
    plain = ("-p", "no:hypothesispytest", "-p", "no:anyio")
    result = pytester.runpytest_subprocess(*plain, "-n", "2")
    result.assert_outcomes(passed=15, failed=1)
    result.stdout.fnmatch_lines("*worker 'gw?' crashed while running 'test_?.py::test_one*")
