"""A copy of the checkout in which a package's tests run against an error in it, each time in a fork.

The fork has the heavy libraries loaded, which saves seconds for each error.
"""

import atexit
import contextlib
import importlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tools.mutate.mutants import Mutant

ROOT = Path(__file__).resolve().parents[2]
TESTS = {
    "core": ["tests/unit/core", "tests/unit/compiler/test_publish.py", "tests/unit/eval_data"],
    "compiler": ["tests/unit/compiler", "tests/cli/test_compiler.py"],
    "recipes": ["tests/unit/recipes", "tests/integration/test_recipes_*.py"],
    "adapters": ["tests/unit/adapters", "tests/integration/test_adapters_*.py"],
    "eval": [
        "tests/unit/eval_figures", "tests/unit/eval_statistics", "tests/unit/eval_runs",
        "tests/unit/eval_judge", "tests/unit/eval_report", "tests/unit/eval_data",
        "tests/unit/eval_models", "tests/unit/eval_prove", "tests/cli/test_dialogue.py",
        "tests/cli/test_prove_servers.py",
    ],
}  # fmt: skip
"""Tests of each package: those of other packages see some errors too, but take as long again."""
SLOW = {
    "core": ["tests/unit/core/test_execution.py", "tests/integration/test_verify.py"],
    "compiler": [
        "tests/unit/compiler/test_compile_file.py",
        "tests/unit/compiler/test_scan.py",
        "tests/integration/test_verify.py",
        "tests/integration/test_verify_recipe.py",
        "tests/integration/test_view.py",
    ],
    "recipes": [
        "tests/integration/test_recipes_inspection.py",
        "tests/integration/test_recipes_sweep_pool.py",
        "tests/integration/test_recipes_examples.py",
    ],
    "adapters": ["tests/integration/test_adapters_peft.py", "tests/integration/test_adapters_oft.py"],
    "eval": ["tests/integration/test_prove.py"],
}
"""Of the slow tests, those that say most about an error that the others do not see."""
EXAMPLES = "tests/integration/test_recipes_examples.py"
"""Its fast tests run the quick check on all example recipes."""
HEAVY = ("pytest", "hypothesis", "numpy", "scipy.stats", "pyarrow.parquet", "matplotlib.figure", "torch")
SECONDS = 400  # a test that takes longer hangs, which nobody overlooks
HANGS = 300  # seconds after which one test is ended
ASKED = 1500  # seconds for the slow test in which LLaMA-Factory answers about all example recipes
PROCESSES = 60  # an error that starts more than so many at once would soon have taken the whole machine
LIMITS = {resource.RLIMIT_FSIZE: 2 << 30, resource.RLIMIT_DATA: 6 << 30}  # bytes, since errors have no bounds


def package_of(path: str) -> str:
    """The top-level folder of a file."""
    return path.partition("/")[0]


def tracked() -> list[str]:
    """Return the files of the checkout as they are now, those that git ignores left out."""
    asked = ["git", "ls-files", "-co", "--exclude-standard", "-z"]
    listed = subprocess.run(asked, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return sorted(name for name in listed if name and (ROOT / name).is_file())


class Sandbox:
    """The copy of the checkout in `folder`/checkout; the last tests' output is in `folder`/log."""

    def __init__(self, folder: Path) -> None:
        self.copy, self.log = folder / "checkout", folder / "log"
        for name in tracked():
            (self.copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, self.copy / name)
        for package in (ROOT / "tuneyard").iterdir():
            if package.is_symlink() and package.is_dir():
                (self.copy / "tuneyard" / package.name).symlink_to(package.readlink())
        os.environ |= dict.fromkeys(("HOME", "XDG_CACHE_HOME", "TMPDIR"), str(folder))
        os.environ["OMP_NUM_THREADS"] = "1"
        for name in HEAVY:
            importlib.import_module(name)
        self.changed = 0
        self.seconds: dict[str, float] = {}

    def begin(self, package: str) -> None:
        """Run the tests of a package without an error; fail if one of them does."""
        clock = time.monotonic()
        if self.run(lambda: self._pytest(self._files(package)), 10 * SECONDS) != "survived":
            sys.exit(f"{package}: tests fail without any error:\n{self.log.read_text('utf-8')[-3000:]}")
        self.seconds[package] = time.monotonic() - clock

    def _own(self, path: str) -> list[str]:
        """Test files of a module: its namesakes and those that import it, also those of commands."""
        module = path.removesuffix(".py").replace("/", ".")
        package, _unused, last = module.rpartition(".")
        imports = re.compile(rf"^from tuneyard\.({module} import|{package} import .*\b{last}\b)", re.M)

        def is_own(name: str) -> bool:
            return (
                last in Path(name).stem or imports.search((self.copy / name).read_text("utf-8")) is not None
            )

        commands = sorted(str(file.relative_to(self.copy)) for file in self.copy.glob("tests/cli/test_*.py"))
        return list(filter(is_own, dict.fromkeys([*self._files(package_of(path)), *commands])))

    def _files(self, package: str) -> list[str]:
        """Test files of a package, those in tests/unit first."""
        files = []
        for pattern in TESTS[package]:
            whole = pattern if pattern.endswith(".py") else f"{pattern}/**/test_*.py"
            files += sorted(str(file.relative_to(self.copy)) for file in self.copy.glob(whole))
        return files

    def judge(self, mutant: Mutant) -> str:
        """What the tests of a package make of an error in it: killed, survived, or hangs."""
        path = self.copy / mutant.path
        source, before = path.read_bytes(), path.stat().st_mtime_ns
        self.changed += 1
        later = before + self.changed * 10**9  # no two errors share a time, so that no old bytecode is taken
        path.write_bytes(mutant.apply(source))
        os.utime(path, ns=(later, later))
        try:
            return self._in_turn(mutant.path)
        finally:
            path.write_bytes(source)
            os.utime(path, ns=(before, before))

    def _in_turn(self, path: str) -> str:
        """Run the quick check of all example recipes, the module's own tests, the package's others."""
        package, own = package_of(path), self._own(path)
        steps: list[Callable[[], int]] = []
        if package == "recipes":
            steps.append(lambda: self._pytest([EXAMPLES]))
        if own:
            steps.append(lambda: self._pytest(own))
        steps.append(lambda: self._pytest([file for file in self._files(package) if file not in own]))
        for step in steps:
            became = self.run(step, max(SECONDS, 4 * self.seconds[package]))
            if became != "survived":
                return became
        if package in SLOW:
            words = ["-m", "slow", f"--timeout={ASKED}", *SLOW[package]]
            return self.run(lambda: self._pytest(words), ASKED)
        return "survived"

    def run(self, step: Callable[[], int], seconds: float = SECONDS) -> str:
        """What a step says about the copy as it is: killed if it returns no 0, survived, or hangs."""
        child = os.fork()
        if not child:
            self._become(step)
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

    def _become(self, step: Callable[[], int]) -> None:
        """Run a step in this process, which sees the copy alone, and end."""
        code = 3
        atexit._clear()  # a training of the tests runs the handlers, one of which removes the sandbox
        try:
            os.setsid()
            file = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for stream in (1, 2):
                os.dup2(file, stream)
            for kind, most in LIMITS.items():
                resource.setrlimit(kind, (most, most))
            os.chdir(self.copy)
            tempfile.tempdir = None  # TMPDIR decides anew: a test that hangs in its own folder is found there
            sys.path[:] = [str(self.copy), *(one for one in sys.path if one not in ("", str(ROOT)))]
            for name in [name for name in sys.modules if name.split(".")[0] in ("tests", "testing")]:
                del sys.modules[name]
            code = step()
        finally:
            sys.stdout.flush()
            os._exit(code)

    def _pytest(self, words: list[str]) -> int:
        """Run tests until one fails. No test of these is a survivor, too."""
        import pytest

        options = ["-x", f"--timeout={HANGS}", "-q", "-p", "no:cacheprovider", "--hypothesis-seed=0"]
        code = pytest.main([*options, "-m", "not slow and not gpu and not peer", *words])
        return 0 if code == pytest.ExitCode.NO_TESTS_COLLECTED else int(code)
