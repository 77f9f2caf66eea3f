"""Commands with slow imports done once, each still in a process of its own: a fork of one that has them.

python -m testing.forks DESCRIPTOR LIBRARY… listens at an open socket. A message is a JSON list (the words
after `python`, a folder, an environment) with three descriptors, the streams of the fork. The answers are two
JSON objects: pid (of the fork), and when it has ended code (its exit code), cpu_seconds.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from multiprocessing import process
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

import tuneyard
from testing import ROOT, Done

PROGRAM = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as line:
    line.connect({address!r})
    order = json.dumps([[*{words!r}, *sys.argv[1:]], os.getcwd(), dict(os.environ)])
    socket.send_fds(line, [order.encode()], [0, 1, 2])
    line.recv(1000)
    sys.exit(json.loads(line.recv(1000))["code"])
"""
"""A program that runs in a fork what `python` with some words and its own runs."""
IMPORTED = ("torch", "transformers", "peft", "datasets", "matplotlib.pyplot", "scipy.stats", "llamafactory")
"""What takes longest in a command of the documents: 7 CPU seconds, and 11 for LLaMA-Factory."""
NOWHERE = os.open(os.devnull, os.O_WRONLY)
WHOLE = (
    "llamafactory.data", "llamafactory.hparams", "llamafactory.model", "llamafactory.train.tuner",
    "tuneyard.recipes.llamafactory.inspection",
    "bitsandbytes", "scipy.io", "transformers.integrations.integration_utils",
    "transformers.models.qwen2.modeling_qwen2",
)  # fmt: skip
"""LLaMA-Factory and what a question imports: PEFT bitsandbytes with the first adapter, datasets scipy.io."""


class Forks:
    """A process that has imported some libraries and runs commands in forks of itself."""

    def __init__(self, *libraries: str, env: dict[str, str]) -> None:
        self.cpu_seconds = 0.0  # of all commands, with the processes that they waited for
        self.folder = tempfile.TemporaryDirectory(prefix="forks-")  # a socket's address is short
        self.address = f"{self.folder.name}/socket"
        self.python = self._program("python", [])
        """Runs a module or a file in a fork, for commands that start a Python by its path."""
        command = self._program("bin/tuneyard", ["-m", "tuneyard"])  # as commands that run in forks find it
        self._program("checkout/python", [])
        self.checkout_programs = Path(self.folder.name, "checkout")
        """What users also type in a checkout: `python -m PACKAGE …` and LLaMA-Factory's own command."""
        programs = (command.parent, Path(sys.executable).parent, os.environ["PATH"])
        self.hub_cache = Path(self.folder.name, "hub")
        """The hub's cache of all forks, empty at first. huggingface_hub reads its path at its import."""
        hub = {"HF_HUB_CACHE": str(self.hub_cache)}
        self.env = {**os.environ, "PATH": ":".join(map(str, programs)), **hub, **env}
        self.llamafactory: Forks | None = None
        """Answers about LLaMA-Factory, and trains, for the commands that run here."""
        names = list(libraries)
        if "llamafactory" in names:
            read_at_import = {"CUDA_VISIBLE_DEVICES": "", "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
            self.llamafactory = Forks(*WHOLE, env={**hub, **env, **read_at_import})
            names[names.index("llamafactory")] = f"llamafactory={self.llamafactory.folder.name}"
        trainer = self.llamafactory or self
        self._program("checkout/llamafactory-cli", ["-m", "llamafactory.cli"], trainer.address)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(self.address)
            listening.listen()
            descriptor = listening.fileno()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "testing.forks", str(descriptor), *names],
                cwd=ROOT,
                env=self.env,
                pass_fds=[descriptor],
            )

    def __enter__(self) -> "Forks":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process, which ends the forks that still run."""
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()
        if self.llamafactory is not None:
            self.llamafactory.close()

    def _program(self, name: str, words: list[str], address: str | None = None) -> Path:
        """Write a program that runs `python WORDS …` in a fork, of this process or of that at an address."""
        path = Path(self.folder.name, name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(PROGRAM.format(python=sys.executable, address=address or self.address, words=words))
        path.chmod(0o755)
        return path

    def run(self, module: str, *words: object, code: int | None = 0) -> Done:
        """Run a command as `python -m` does and check its exit code, as the fixture `run` does. None: any."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as error:
            running = self.start(module, *words, out=out.fileno(), error=error.fileno())
            running.wait()
            texts = []
            for file in (out, error):
                file.seek(0)
                texts.append(file.read().decode())
        self.cpu_seconds += running.end["cpu_seconds"]
        done = Done([module, *map(str, words)], running.end["code"], *texts)
        printed = "\n".join(texts)
        if code is None:
            return done
        assert done.returncode == code, f"exit {done.returncode}, expected {code}\n{printed}"
        assert "Traceback" not in printed
        return done

    def start(self, module: str, *words: object, out: int = NOWHERE, error: int = NOWHERE) -> "RunningFork":
        """Start a command as `python -m` does. What it prints goes to the descriptors, or nowhere."""
        line = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        line.connect(self.address)
        order = json.dumps([["-m", module, *map(str, words)], str(ROOT), self.env])
        socket.send_fds(line, [order.encode()], [0, out, error])
        return RunningFork(line)


class RunningFork:
    """A command in a fork, with those methods of `subprocess.Popen` that tests use."""

    def __init__(self, line: socket.socket) -> None:
        self.line = line
        self.pid: int = json.loads(line.recv(1000))["pid"]
        self.end: dict[str, Any] = {}

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        if not self.end and not select.select([self.line], [], [], 0)[0]:
            return None
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return its exit code."""
        if not self.end:
            self.end = json.loads(self.line.recv(1000))
            self.line.close()
        return int(self.end["code"])

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    communicate = wait  # what it printed is not kept


def run_in_a_fork(line: socket.socket, order: bytes, streams: list[int]) -> dict[str, object]:
    words, folder, environment = json.loads(order)
    child = os.fork()
    if child == 0:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        vars(process)["ORIGINAL_DIR"] = folder  # where multiprocessing starts the processes of this one
        end_at_once(run_as_main(words))
    line.send(json.dumps({"pid": child}).encode())
    for stream in streams:
        os.close(stream)
    wait_or_kill(child, line)
    _, status, usage = os.wait4(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "cpu_seconds": usage.ru_utime + usage.ru_stime}


def wait_or_kill(child: int, line: socket.socket) -> None:
    """Wait for the end of a fork, or kill it when the program that it runs for has ended."""
    poll = select.poll()
    poll.register(os.pidfd_open(child), select.POLLIN)
    poll.register(line, 0)  # reports the hang-up alone
    poll.poll()
    if select.select([line], [], [], 0)[0]:
        os.kill(child, signal.SIGKILL)


def run_as_main(words: list[str]) -> int:
    """Run what `python` with these words runs, [-u] -m MODULE or [-u] FILE, and tell its exit code."""
    if words[0] == "-u":  # as torchrun starts a rank; a fork prints when it ends
        words = words[1:]
    try:
        if words[0] == "-m":
            sys.argv = ["-m", *words[2:]]  # as Python sets it until it has found the module
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            runpy.run_path(words[0], run_name="__main__")
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


def share_llamafactory(programs: Path) -> None:
    """Let commands ask and train in forks of a process that has imported LLaMA-Factory.

    Each would import it otherwise, for 10 CPU seconds.
    """
    from tuneyard.core.llamafactory import client
    from tuneyard.recipes.llamafactory import launch

    python = str(programs / "python")
    client.COMMAND = (python, *client.COMMAND[1:])
    launch.PYTHON = python
    launch.llamafactory_cli = lambda: str(programs / "checkout" / "llamafactory-cli")


def import_tuneyard() -> None:
    """Import all modules of Tuneyard but those that do something when they are imported."""
    for module in pkgutil.walk_packages(tuneyard.__path__, "tuneyard."):
        _, _, name = module.name.rpartition(".")
        if name != "__main__":
            importlib.import_module(module.name)


def main() -> None:
    listening = socket.socket(fileno=int(sys.argv[1]))
    for library in sys.argv[2:]:
        name, _, folder = library.partition("=")
        if folder:
            share_llamafactory(Path(folder))
        else:
            importlib.import_module(name)
    import_tuneyard()
    gc.freeze()  # forks need no copy of what the collector would touch
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that serve an order
    while True:
        line, _ = listening.accept()
        with line:
            if os.fork() == 0:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                order, streams, _, _ = socket.recv_fds(line, 1_000_000, 3)
                line.send(json.dumps(run_in_a_fork(line, order, streams)).encode())
                os._exit(0)


if __name__ == "__main__":
    main()
