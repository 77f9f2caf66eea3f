"""python -m tests.forks LIBRARY…: commands with slow imports done once, each still in a process of its own.

Each line of the standard input is a JSON list: a module and its words, as after `python -m`. It runs in a
fork. The line that answers is a JSON object: code (its exit code), cpu_seconds, stdout, stderr.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
from types import TracebackType
from typing import NoReturn

from tests.conftest import ROOT, Done


class Forks:
    """A process that has imported some libraries and runs commands in forks of itself."""

    def __init__(self, *libraries: str, env: dict[str, str]) -> None:
        self.cpu_seconds = 0.0  # of all commands, with the processes that they waited for
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.forks", *libraries],
            cwd=ROOT,
            env={**os.environ, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> "Forks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.communicate()

    def run(self, *command: object, code: int | None = 0) -> Done:
        """Run a command as `python -m` does and check its exit code, as the fixture `run` does. None: any."""
        words = list(map(str, command))
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.cpu_seconds += answer["cpu_seconds"]
        done = Done(words, answer["code"], answer["stdout"], answer["stderr"])
        printed = f"{done.stdout}\n{done.stderr}"
        if code is None:
            return done
        assert done.returncode == code, f"exit {done.returncode}, expected {code}\n{printed}"
        assert "Traceback" not in printed
        return done


def run_in_a_fork(module: str, words: list[str]) -> dict[str, object]:
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(error.fileno(), 2)
            sys.argv = [module, *words]
            end_at_once(run_as_main(module))
        _, status, usage = os.wait4(child, 0)
        texts = {}
        seconds = usage.ru_utime + usage.ru_stime
        for name, file in (("stdout", out), ("stderr", error)):
            file.seek(0)
            texts[name] = file.read().decode()
        return {"code": os.waitstatus_to_exitcode(status), "cpu_seconds": seconds, **texts}


def run_as_main(module: str) -> int:
    """Run a module as `python -m` does, with the words in sys.argv, and tell its exit code."""
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        if ended.code is None:
            return 0
        if isinstance(ended.code, int):
            return ended.code
        print(ended.code, file=sys.stderr)
        return 1
    except BaseException:  # noqa: BLE001 - as the interpreter does
        traceback.print_exc()
        return 1
    return 0


def end_at_once(code: int) -> NoReturn:
    """End a fork without freeing what its parent imported, which takes 2.5 CPU s for LLaMA-Factory."""
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    for library in sys.argv[1:]:
        importlib.import_module(library)
    gc.freeze()  # forks need no copy of what the collector would touch
    for line in sys.stdin:
        module, *words = json.loads(line)
        print(json.dumps(run_in_a_fork(module, words)), flush=True)


if __name__ == "__main__":
    main()
