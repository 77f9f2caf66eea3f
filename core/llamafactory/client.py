"""Questions to LLaMA-Factory: `ask(inspect, settings, launch)` runs a function of ours beside it.

It runs in child.py, a process that imports LLaMA-Factory once for all questions of this process. It is a
plain subprocess: it works from a script without `if __name__ == "__main__"`, a notebook and several threads.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar, TypeVarTuple, cast, get_type_hints

from tuneyard.core.errors import ContentError, need
from tuneyard.core.files.bounded_reading import LARGEST_BATCH
from tuneyard.core.installation.checkout import python_variables
from tuneyard.core.language.message import Message, _
from tuneyard.core.language.messages import say
from tuneyard.core.records.json_form import from_json_form, json_form

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

COMMAND = (sys.executable, "-m", "tuneyard.core.llamafactory.child")
LONGEST = 7200.0
"""Seconds for an answer: counting the tokens of ten million rows takes one hour."""
_CHUNK = 1 << 20
_GPUS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES")
"""Variables that hide all devices if they are empty: CUDA refuses a fork of a process that has used one."""
_OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
_QUIET = {"LLAMAFACTORY_VERBOSITY": "ERROR", "TOKENIZERS_PARALLELISM": "false"}


class LlamaFactoryChild:
    """The one child of this process: started by the first question, and ended with this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        os.register_at_fork(after_in_child=self._forget)

    def ask(self, function: Callable[[*Arguments], T], *arguments: *Arguments, seconds: float = LONGEST) -> T:
        """What a function of a module returns there. Its arguments and its answer travel as JSON.

        `ContentError` if it crashes, or takes longer.
        """
        request = {
            "function": f"{function.__module__}:{function.__qualname__}",
            "arguments": json_form(arguments),
            "folder": str(Path.cwd()),
            "environment": environment(),
            "seconds": seconds,
        }
        line = json.dumps(request).encode("ascii") + b"\n"
        if len(line) > LARGEST_BATCH:
            raise _unanswered(_("the settings are above {size} MiB", size=LARGEST_BATCH >> 20))
        with self._lock, contextlib.ExitStack() as if_interrupted:
            if_interrupted.callback(self.end)  # so that the next question does not get this one's answer
            answer = self._answer(line)
            if_interrupted.pop_all()
        if "error" in answer:
            raise _unanswered(from_json_form(str, answer["error"]))
        result: T = from_json_form(get_type_hints(function)["return"], answer["answer"])
        return result

    def _answer(self, line: bytes) -> dict[str, Any]:
        """The answer to a request, after all that its function prints."""
        process = self._started()
        try:
            _write(cast("IO[bytes]", process.stdin), line)
        except BrokenPipeError:
            return {"error": self._end_of(process)}
        answers = cast("IO[bytes]", process.stdout)
        while received := _read_lines(answers):
            for received_line in received:
                answer: dict[str, Any] = json.loads(received_line)
                if "import_error" in answer:  # the child has ended
                    reason = from_json_form(str, answer["import_error"])
                    raise ContentError(
                        _("LLaMA-Factory could not be asked: its import failed ({error})", error=reason)
                    )
                if "printed" not in answer:
                    return answer
                if sys.stderr is not None:
                    sys.stderr.write(answer["printed"])
                    sys.stderr.flush()
        return {"error": self._end_of(process)}

    def _started(self) -> "subprocess.Popen[bytes]":
        """The running child."""
        if self._process is None or self._process.poll() is not None:
            need("llamafactory")
            say(_("starting LLaMA-Factory …"), to_stderr=True)
            self._process = subprocess.Popen(
                COMMAND,
                bufsize=0,  # a fork of this process must not inherit the lock of a buffer
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment(),
                start_new_session=True,  # Ctrl-C reaches this process alone
            )
        return self._process

    def _end_of(self, process: "subprocess.Popen[bytes]") -> Message:
        """Why the child ended without an answer."""
        self.end()
        return _("its process ended with code {code}", code=process.returncode)

    def end(self) -> None:
        """End the child. It ends at once, with the fork that answers, when its stdin closes."""
        process, self._process = self._process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            cast("IO[bytes]", pipe).close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _forget(self) -> None:
        """In a fork of this process: leave the child to the parent, and let go of its pipes."""
        process, self._process, self._lock = self._process, None, threading.Lock()
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                cast("IO[bytes]", pipe).close()
            process.returncode = 0  # it is no child of this process


def environment() -> dict[str, str]:
    """Environment of the child: our modules first, no GPU, no network.

    The datasets library reports each `load_dataset` of local files to a server of the hub, unless the user
    or we switch it off.
    """
    hidden = dict.fromkeys(_GPUS, "")
    reports = {"HF_UPDATE_DOWNLOAD_COUNTS": "0"}
    return {**reports, **os.environ, **python_variables(), **hidden, **_OFFLINE, **_QUIET}


def _unanswered(reason: str) -> ContentError:
    return ContentError(_("LLaMA-Factory could not be asked: {reason}", reason=reason))


def _write(stream: IO[bytes], line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[stream.write(rest) :]


def _read_lines(stream: IO[bytes]) -> list[bytes]:
    """The next lines of the child, at least one. [] if it has ended."""
    parts: list[bytes] = []
    while not parts or not parts[-1].endswith(b"\n"):
        part = stream.read(_CHUNK)
        if not part:
            return []
        parts.append(part)
    return b"".join(parts).splitlines()


_CHILD = LlamaFactoryChild()
ask = _CHILD.ask
