"""What all tests share: the root, the real data where it is, a way to run commands, a tiny model."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tiny import make_tiny

# A run started in the background ignores SIGINT and would hand that on to every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
# The files that take longest, in the order in which workers begin them, so that both end at about one time.
# The first two are of `make test`. test_demo.py is the first slow one, since others wait for its demo.
# test_docs.py comes after the rest that is long: each of its cases goes to the worker that is free.
LONGEST_FIRST = (
    "unit/compiler/test_hub.py",
    "integration/test_whole_way.py",
    "integration/test_demo.py",
    "integration/test_recipes_ranks.py",
    "integration/test_recipes_train.py",
    "integration/test_recipes_grid.py",
    "integration/test_recipes_all.py",
    "integration/test_verify.py",
    "integration/test_verify_recipe.py",
    "integration/test_nli_peer.py",
    "integration/test_export_peer.py",
    "integration/test_nli_runs.py",
    "integration/test_suite_runs.py",
    "integration/test_prove.py",
    "integration/test_docs.py",
    "cli/test_tuneyard.py",
    "cli/test_compare.py",
    "integration/test_recipes_examples.py",
    "cli/test_adapters.py",
)
REAL = Path(os.environ.get("TUNEYARD_DATA", ROOT.parent / "shared" / "data"))
Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


def priority(item: pytest.Item) -> int:
    """The place of a test's file in LONGEST_FIRST; all other files come after those."""
    file = item.nodeid.partition("::")[0].removeprefix("tests/")
    if file in LONGEST_FIRST:
        return LONGEST_FIRST.index(file)
    return len(LONGEST_FIRST)


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """For --dist loadgroup: a file is one group, since its tests share fixtures; longest files first."""
    if not hasattr(config, "workerinput"):  # no worker of xdist
        return
    for item in items:
        if item.get_closest_marker("spread") is None:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    items.sort(key=priority)


@pytest.fixture(scope="module", autouse=True)
def own_environment() -> Iterator[None]:
    """What a module of tests, or LLaMA-Factory within it, sets in the environment ends with the module."""
    before = dict(os.environ)
    yield
    os.environ.clear()  # by its name: `Dataset.map` puts another object in its place
    os.environ.update(before)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real public data; tests that need it skip where it is absent."""
    if not REAL.is_dir():
        pytest.skip(f"no real data at {REAL}")
    return REAL


@pytest.fixture(scope="session")
def run() -> Run:
    """`run("-m", "compiler", …, code=0)` runs python from the root and checks the exit code."""

    def call(*args: object, code: int = 0, env: dict[str, str] | None = None) -> Done:
        done = subprocess.run(
            [sys.executable, *map(str, args)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "HF_HUB_OFFLINE": "1", **(env or {})},
            timeout=600,
        )
        said = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == code, f"exit {done.returncode}, expected {code}\n{said}"
        assert "Traceback" not in said
        return done

    return call


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 model folder with tokenizer and ChatML template."""
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model")
