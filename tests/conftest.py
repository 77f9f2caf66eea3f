"""What all tests share: the root, the real data where it is, a way to run commands, a tiny model."""

import functools
import gc
import importlib
import io
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Generator, Iterator
from contextlib import redirect_stderr, redirect_stdout
from contextvars import copy_context
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from testing import ROOT, Done
from testing.real_data import DATA, TOKENIZERS, folder_of
from testing.tiny import make_tiny
from tests import messages
from tests.real_data import line_of_skipped
from tuneyard.core.cli.run import run_command

if TYPE_CHECKING:
    from testing.forks import Forks
    from tuneyard.eval.models.load import Model

# A run started in the background ignores SIGINT and would hand that on to every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Tests and their subprocesses import torch and LLaMA-Factory: compiled each time, that takes twice as long.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# A command sets it where stderr is no terminal, and tqdm reads it when it is imported: here, before any test.
os.environ.pop("TQDM_DISABLE", None)
importlib.import_module("tqdm")

# The files that take longest, in the order in which workers begin them, so that both end at about one time.
# The first one is of `make test`, test_demo.py is the longest of the slow ones.
LONGEST_FIRST = (
    "unit/compiler/test_hub.py",
    "integration/test_demo.py",
    "integration/test_ways.py",
    "integration/test_recipes_examples.py",
    "integration/test_recipes_ranks.py",
    "integration/test_recipes_train.py",
    "integration/test_recipes_grid.py",
    "integration/test_recipes_all.py",
    "integration/test_stages.py",
    "integration/test_verify.py",
    "integration/test_verify_recipe.py",
    "integration/test_nli_peer.py",
    "integration/test_export_peer.py",
    "integration/test_scoring_runs.py",
    "integration/test_prove.py",
    "cli/test_tuneyard.py",
    "cli/test_compare.py",
    "cli/test_adapters.py",
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OFFLINE = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
Run = Callable[..., Done]


SPREAD = ("tests/integration/test_docs.py",)
"""Files whose cases need nothing of one another, so that any worker may run each."""


def file_of(test: str) -> str:
    """The file in the id of a test."""
    return test.partition("::")[0]


@functools.cache
def loads_models(file: Path) -> bool:
    """True if a file of tests uses a model: its worker imports torch and transformers."""
    text = file.read_text(encoding="utf-8")
    return any(word in text for word in ("tiny_model", "transformers", "cli.proving"))


def priority(item: pytest.Item) -> int:
    """The place of a file in LONGEST_FIRST; then come all others, and at last those that any worker runs."""
    file = file_of(item.nodeid)
    if file in SPREAD:
        return len(LONGEST_FIRST) + 1
    name = file.removeprefix("tests/")
    if name in LONGEST_FIRST:
        return LONGEST_FIRST.index(name)
    return len(LONGEST_FIRST)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--regenerate", action="store_true", help="rewrite the golden files of the tests that run, to be read"
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("regenerate") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--regenerate writes one file: leave -n out")
    try:
        for variable in (DATA, TOKENIZERS):
            folder_of(variable)
    except ValueError as error:
        raise pytest.UsageError(str(error)) from error
    config.pluginmanager.register(messages.Comparison(config), messages.Comparison.NAME)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line that tests of real data did not run."""
    reports = terminalreporter.stats.get("skipped", [])
    line = line_of_skipped(report.longrepr[2] for report in reports)
    if line:
        terminalreporter.write_line(line, yellow=True)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let the garbage collector pass over what is imported for all tests: it takes a tenth of that time.

    In the tests it looks 70 times less often than by default, where it takes up to 7 % of the time.
    """
    gc.disable()
    collected = yield
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    gc.enable()
    return collected


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The longest files first, where workers share the tests."""
    if hasattr(config, "workerinput"):
        items.sort(key=priority)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give a file to one worker, since its tests share fixtures; the cases of `SPREAD` go to any.

    pytest-xdist 3.8 has groups for this (`--dist loadgroup`), which pytest 9.2 does not see.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        """Files are the units of work, in the order in which they are collected.

        Every other worker begins with those that use no model, so that it may never import what they need.
        """

        def _assign_work_unit(self, node: Any) -> None:
            has_models = self.nodes.index(node) % 2 == 0
            fitting = (
                unit for unit in self.workqueue if loads_models(config.rootpath / file_of(unit)) is has_models
            )
            self.workqueue.move_to_end(next(fitting, next(iter(self.workqueue))), last=False)
            super()._assign_work_unit(node)

        def _split_scope(self, nodeid: str) -> str:
            file = file_of(nodeid)
            return nodeid if file in SPREAD else file

        def remove_node(self, node: Any) -> str | None:
            """Give the tests of a worker that died to the others, without the one that killed it.

            pytest-xdist 3.8 also gives finished files to the next worker, which waits for ever if one has no
            test left, and again the test that killed the first.
            """
            files = self.assigned_work.pop(node)
            waiting = [test for tests in files.values() for test, is_done in tests.items() if not is_done]
            for test in waiting[1:]:
                self.workqueue.setdefault(self._split_scope(test), {})[test] = False
            for other in self.nodes:
                self._reschedule(other)
            return waiting[0] if waiting else None

        def schedule(self) -> None:
            """Give a new worker a second file too: it begins a test when it knows the next one."""
            super().schedule()
            for node in self.nodes:
                self._reschedule(node)

    config.option.loadscopereorder = False
    return ByFile(config, log)


@pytest.fixture(scope="module", autouse=True)
def own_environment() -> Iterator[None]:
    """What a module of tests, or LLaMA-Factory within it, sets in the environment ends with the module."""
    before = dict(os.environ)
    yield
    os.environ.clear()  # by its name: `Dataset.map` puts another object in its place
    os.environ.update(before)


@pytest.fixture(scope="session", autouse=True)
def own_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which tests and their commands run: nothing that lies in the clone reaches them.

    A clone may hold the adapters, datasets and results of a demo. Files of the repository are named by ROOT,
    or found as bundled files, as they are in any other folder.
    """
    folder = tmp_path_factory.mktemp("own_folder")
    (folder / "dataset_info").mkdir()  # as in a checkout
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, in which the test runs."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def run(own_folder: Path) -> Run:
    """`run("-m", "compiler", …, code=0)` runs python in a folder of the tests and checks the exit code."""

    def call(*args: object, code: int = 0, env: dict[str, str] | None = None) -> Done:
        done = subprocess.run(
            [sys.executable, *map(str, args)],
            capture_output=True,
            text=True,
            cwd=own_folder,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), **(env or {})},
            timeout=600,
        )
        said = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == code, f"exit {done.returncode}, expected {code}\n{said}"
        assert "Traceback" not in said
        return done

    return call


@pytest.fixture(scope="session")
def forks() -> "Iterator[Forks]":
    """A process that has imported what commands import, and another one has LLaMA-Factory."""
    from testing.forks import IMPORTED, Forks

    with Forks(*IMPORTED, env=OFFLINE) as running:
        yield running


Here = Callable[..., Done]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> Iterator[Here]:
    """`here(cli, …, code=0)` runs a command as `python -m` does, in this process: no start and no imports.

    Use `run` where the process itself is the subject: what it imports, its signals, its environment.
    """
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.chdir(own_folder)

    def call(command: click.Command, *args: object, code: int = 0) -> Done:
        words = list(map(str, args))
        out, error = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        monkeypatch.setattr(sys, "argv", [command.name or "", *words])
        with redirect_stdout(out), redirect_stderr(error), pytest.raises(SystemExit) as ended:
            copy_context().run(run_command, command)  # `--lang` is set for the process
        texts = [stream.buffer.getvalue().decode() for stream in (out, error)]  # type: ignore[attr-defined]
        printed = "\n".join(texts)
        assert ended.value.code == code, f"exit {ended.value.code}, expected {code}\n{printed}"
        return Done(words, code, *texts)

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def without_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare without drawing, for tests of tables and texts: each plot takes 0.2 s."""
    monkeypatch.setattr("tuneyard.eval.report.plots.draw_plots", lambda *_: [])


@pytest.fixture
def unrendered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw plots and write empty pictures, for tests of their names and of the texts on and around them."""
    render_nothing(monkeypatch)


def render_nothing(patch: pytest.MonkeyPatch) -> None:
    """Write empty pictures."""
    from matplotlib.figure import Figure

    save, empty = Figure.savefig, Figure(figsize=(1, 1))
    patch.setattr(Figure, "savefig", lambda _, file, **options: save(empty, file, **options))


@pytest.fixture(scope="session", autouse=True)
def without_waiting_for_the_disk() -> Iterator[None]:
    """Let no file of this process wait for the disk: that is half the time of a test that writes many.

    test_publish.py and test_weights.py see that product code asks for it. The version of an installed package
    is read once, since a compile asks for that of four, which takes a fifth of its time.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(metadata, "version", functools.cache(metadata.version))
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2 model folder with tokenizer and ChatML template."""
    return make_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def model(tiny_model: Path) -> "Model":
    """The tiny model, loaded on one thread: more cost more than they help at this size."""
    import torch

    from tuneyard.eval.models.load import load_model

    torch.set_num_threads(1)
    return load_model(tiny_model, "fp32")
