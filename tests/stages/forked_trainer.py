"""A library of `tests.forks`: recipe commands fork the process that has imported LLaMA-Factory.

`recipe check`, `plan` and `train` start a server that imports it for 10 CPU seconds. Here that server is a
fork of the process that runs the command, with the imports in it. All else of the commands is unchanged.
"""

import ctypes
import importlib
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from typing import Any

from tuneyard.recipes import llamafactory_client
from tuneyard.recipes.llamafactory_server import serve

IMPORTED = (
    "llamafactory.train.tuner",
    "llamafactory.data",
    "llamafactory.hparams",
    "llamafactory.model",
    "llamafactory.cli",
    "peft",
    "bitsandbytes",
    "trl",
    "tuneyard.__main__",
)
PDEATHSIG = 1  # PR_SET_PDEATHSIG of prctl(2)
for library in IMPORTED:
    importlib.import_module(library)


class ForkedProcess:
    """The part of `subprocess.Popen` that recipes/llamafactory_client.py and recipes/launch.py use."""

    def __init__(self, pid: int, errors: int) -> None:
        self.pid = pid
        self.stderr = os.fdopen(errors, "rb")
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("fork", timeout)
            time.sleep(0.02)
        assert self.returncode is not None
        return self.returncode


def supervised_fork(command: list[str], *, pass_fds: tuple[int, ...], **_options: Any) -> ForkedProcess:
    """Run llamafactory_server.py, which `command` names, in a fork. Its words are the last of `command`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return ForkedProcess(child, reading)
    ctypes.CDLL(None).prctl(PDEATHSIG, signal.SIGKILL)
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream, descriptor in enumerate((nothing, nothing, writing)):
        os.dup2(descriptor, stream)
    (channel,) = pass_fds
    os.closerange(3, channel)  # the client's end of the channel among them
    os.closerange(channel + 1, 1024)
    code = 1
    try:
        serve(socket.socket(fileno=channel), several="several" in command[-1:])
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0
    except BaseException:  # noqa: BLE001 - a fork must not go on in the code of the parent
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


llamafactory_client.supervised = supervised_fork  # type: ignore[assignment,attr-defined]
