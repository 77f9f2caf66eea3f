"""python -m tests.forks LIBRARY…: commands with slow imports done once, each still in a process of its own.

Each line of the standard input is a JSON list: a module and its words, as after `python -m`. It runs in a
fork. The line that answers is a JSON object with its exit code and both streams: code, stdout, stderr.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from types import TracebackType

from tests.conftest import ROOT, Done


class Forks:
    """A process that has imported some libraries and runs commands in forks of itself."""

    def __init__(self, *libraries: str, env: dict[str, str]) -> None:
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

    def run(self, *command: object, code: int = 0) -> Done:
        """Run a command as `python -m` does and check its exit code, as the fixture `run` does."""
        words = list(map(str, command))
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        done = Done(words, answer["code"], answer["stdout"], answer["stderr"])
        printed = f"{done.stdout}\n{done.stderr}"
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
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            sys.exit(0)
        _, status = os.waitpid(child, 0)
        texts = {}
        for name, file in (("stdout", out), ("stderr", error)):
            file.seek(0)
            texts[name] = file.read().decode()
        return {"code": os.waitstatus_to_exitcode(status), **texts}


def main() -> None:
    for library in sys.argv[1:]:
        importlib.import_module(library)
    for line in sys.stdin:
        module, *words = json.loads(line)
        print(json.dumps(run_in_a_fork(module, words)), flush=True)


if __name__ == "__main__":
    main()
