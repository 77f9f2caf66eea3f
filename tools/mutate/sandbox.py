"""A copy of the checkout in which a module's tests run against an error in it, each time in a fork.

The fork has the heavy libraries loaded, which saves seconds for each error.
"""

import ast
import contextlib
import importlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import cached_property
from pathlib import Path

from tools.mutate import entered
from tools.mutate.mutants import Mutant
from tools.mutate.notes import Entered, Plugin

ROOT = Path(__file__).resolve().parents[2]
TESTS = [
    "tests/unit/core", "tests/unit/compiler", "tests/unit/adapters", "tests/unit/eval_metrics",
    "tests/unit/eval_statistics", "tests/unit/eval_read", "tests/unit/eval_judge", "tests/unit/eval_show",
    "tests/unit/eval_datasets/test_clusters_mnli.py", "tests/unit/eval_backends/test_stream.py",
    "tests/cli/test_compiler.py", "tests/cli/test_dialogue.py", "tests/cli/test_tuneyard.py",
]  # fmt: skip
FEW = 20  # tests that are run first
HEAVY = ("pytest", "hypothesis", "numpy", "scipy.stats", "pyarrow.parquet", "matplotlib.figure", "torch")
SECONDS = 400  # a test that takes longer hangs, which nobody overlooks
HANGS = 120  # seconds after which one test is ended
NOTED = 6  # times as long may a test take while every function that it enters is noted
PROCESSES = 60  # an error that starts more than so many at once would soon have taken the whole machine
LIMITS = {resource.RLIMIT_FSIZE: 2 << 30, resource.RLIMIT_DATA: 6 << 30}  # bytes, since errors have no bounds


def tracked() -> list[str]:
    """Return the files of the checkout as they are now, those that git ignores left out."""
    asked = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(asked, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return sorted(name for name in listed if name and (ROOT / name).is_file())


class Sandbox:
    """The copy of the checkout in `folder`/checkout; the last tests' output is in `folder`/log."""

    def __init__(self, folder: Path) -> None:
        self.copy, self.log, self.notes = folder / "checkout", folder / "log", folder / "notes"
        for name in tracked():
            (self.copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.copy / name)
        for package in (ROOT / "tuneyard").iterdir():
            if package.is_symlink():
                (self.copy / "tuneyard" / package.name).symlink_to(package.readlink())
        os.environ.setdefault("TUNEYARD_DATA", str(ROOT.parent / "shared" / "data"))
        os.environ |= dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR"), str(folder))
        os.environ["OMP_NUM_THREADS"] = "1"
        for name in HEAVY:
            importlib.import_module(name)
        self.changed = 0

    def record(self) -> str:
        """Run all tests once without an error, noting what they enter; return what they say."""
        site = self.copy.parent / "site"
        site.mkdir(exist_ok=True)
        shutil.copy2(entered.__file__, site / "sitecustomize.py")
        os.environ |= {entered.NOTES: str(self.notes), "PYTHONPATH": str(site)}
        became = self.run([one for one in TESTS if (self.copy / one).exists()], 10 * SECONDS)
        for name in (entered.NOTES, "PYTHONPATH"):
            del os.environ[name]
        return became

    @cached_property
    def entered(self) -> Entered:
        """What the notes of `record` say."""
        return Entered(self.notes)

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests that an error can fail: the module's own first, the quick before the slow."""
        who = self.entered
        first = _function(ast.parse((self.copy / mutant.path).read_bytes()), mutant.start[0])
        tests = who.tests(mutant.path, first) or who.tests(mutant.path, None)
        own = self._own(mutant.path)
        return sorted(tests, key=lambda one: (one.split("::")[0] not in own, who.seconds[one]))

    def _own(self, path: str) -> set[str]:
        """Return the test files of a module: its namesakes and those that import it."""
        module = path.removesuffix(".py").replace("/", ".")
        package, _, last = module.rpartition(".")
        imports = re.compile(
            rf"^from {re.escape(module)} import|^from {re.escape(package)} import .*\b{last}\b", re.M
        )
        files = [*(self.copy / "tests/unit").rglob("test_*.py")]
        own = [
            one
            for one in files
            if last in one.stem.split("test_")[1] or imports.search(one.read_text("utf-8"))
        ]
        return {str(one.relative_to(self.copy)) for one in own}

    def judge(self, mutant: Mutant) -> str:
        """Return what a module's tests say about an error in it: killed, survived, or hangs."""
        path, tests = self.copy / mutant.path, self.tests_of(mutant)
        source, before = path.read_bytes(), path.stat().st_mtime_ns
        self.changed += 1
        later = before + self.changed * 10**9  # no two errors share a time, so that no old bytecode is taken
        path.write_bytes(mutant.apply(source))
        os.utime(path, ns=(later, later))
        try:
            return self._in_two(tests)
        finally:
            path.write_bytes(source)
            os.utime(path, ns=(before, before))

    def _in_two(self, tests: list[str]) -> str:
        """Run the first tests, which are likely to fail, then the others: loading all files takes long."""
        for some in (tests[:FEW], tests[FEW:]):
            if some and (became := self.run(some)) != "survived":
                return became
        return "survived"

    def run(self, tests: list[str], seconds: int = SECONDS) -> str:
        """Return what tests say about the copy as it is: killed where one fails, survived, or hangs."""
        child = os.fork()
        if not child:
            self._become_pytest(tests)
        end, done = time.monotonic() + seconds, (0, 0)
        while not done[0] and time.monotonic() < end and len(self._processes()) <= PROCESSES:
            time.sleep(0.1)
            done = os.waitpid(child, os.WNOHANG)
        while left := self._processes():
            for process in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            if not done[0]:
                os.waitpid(child, 0)
                done = (child, -1)
        return {-1: "hangs", 0: "survived"}.get(done[1], "killed")

    def _processes(self) -> list[int]:
        """Return the processes that work in the sandbox, whoever started them."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (folder / "cwd").readlink().is_relative_to(self.copy.parent):
                    found.append(int(folder.name))
        return found

    def failed(self) -> str:
        """Return the first test that failed in the last run."""
        found = re.search(r"^(?:FAILED|ERROR) (\S+)", self.log.read_text("utf-8", "replace"), re.M)
        return found[1] if found else ""

    def _become_pytest(self, tests: list[str]) -> None:
        """Run pytest in this process, which sees the copy alone, and end."""
        code = 3
        try:
            os.setsid()
            file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(file, stream)
            for kind, most in LIMITS.items():
                resource.setrlimit(kind, (most, most))
            os.chdir(self.copy)
            sys.path[:] = [str(self.copy), *(one for one in sys.path if one not in ("", str(ROOT)))]
            for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
                del sys.modules[name]
            import pytest

            options, plugins = ["-x", f"--timeout={HANGS}"], []
            if entered.NOTES in os.environ:  # all tests, also those behind one that fails
                options = [f"--timeout={NOTED * HANGS}"]
                plugins = [Plugin(entered.Notes(str(self.notes)))]
            options += ["-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
            code = int(
                pytest.main([*options, "-m", "not slow and not gpu and not peer", *tests], plugins=plugins)
            )
        finally:
            sys.stdout.flush()
            os._exit(code)


def _function(tree: ast.Module, line: int) -> int | None:
    """Return the first line of the innermost function around a line, None where it runs on import or once."""
    found = None
    for node in ast.walk(tree):  # from the outermost to the innermost
        if isinstance(node, ast.FunctionDef) and node.body[0].lineno <= line <= (node.end_lineno or 0):
            once = any("cache" in ast.dump(one) for one in node.decorator_list)
            found = None if once else min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return found
