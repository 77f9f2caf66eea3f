"""python -m tuneyard.core.llamafactory.child: imports LLaMA-Factory once, and answers questions about it.

client.py starts it and writes a request a line to its stdin:

    {"function": "tuneyard.recipes.llamafactory.inspection:inspect", "arguments": [{"stage": "sft"}, {}],
     "folder": "/home/me", "environment": {"PATH": "/usr/bin"}, "seconds": 7200}

It answers each, one after the other, with one line on its stdout: `{"answer": …}`, or `{"error": …}`, a text
or a message. Before that come any number of lines `{"printed": "counting tokens: 40%"}`.

The function runs in a fork of its own with a time limit. So neither the seeds and devices of one recipe nor
its crash reach the next. The process ends at once when its stdin is closed, as at the death of the process
that asks, and its fork ends with it.
"""

import contextlib
import gc
import importlib
import io
import json
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NoReturn, TypedDict, get_type_hints

from tuneyard.core.errors import TuneyardError
from tuneyard.core.execution.processes import end_with
from tuneyard.core.language.message import Message, _, message_of
from tuneyard.core.llamafactory import progress
from tuneyard.core.llamafactory.loader import import_offline
from tuneyard.core.records.json_form import from_json_form, json_form
from tuneyard.core.text.terminal import written

LARGEST_LINE = 256 << 20
"""Bytes of a request or an answer: the tokens of ten million rows take fewer."""
LONGEST_ERROR = 2000
"""Characters of an exception's text."""
_CHUNK = 1 << 16
_LOOK_AFTER_CLOSE = 0.01
PRINTED = b'{"printed"'
"""The beginning of a line that is no answer."""
_LOOK = 1.0
"""Seconds between two looks whether a fork still runs: a process that it started may hold its pipe open."""


class Request(TypedDict):
    """One line of stdin. `folder` and `environment` are those of the asking process, which may change."""

    function: str
    arguments: list[object]
    folder: str
    environment: dict[str, str]
    seconds: float


class Fork:
    """A running request: its process id, which is also its process group, and its exit code at its end."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._exit_code: int | None = None

    def has_ended(self) -> bool:
        """True if it has ended by itself."""
        if self._exit_code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._exit_code = os.waitstatus_to_exitcode(status)
        return self._exit_code is not None

    def exit_code(self) -> int:
        """Wait for its end."""
        if self._exit_code is None:
            self._exit_code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._exit_code

    def kill(self) -> None:
        """Kill it with all that it has started."""
        with contextlib.suppress(ProcessLookupError):  # all of it has ended
            os.killpg(self.pid, signal.SIGKILL)


class _Reported(contextlib.AbstractContextManager[None]):
    """Sends the reason of an error that leaves it. LLaMA-Factory and models' code may raise anything."""

    def __init__(self, send: Callable[[str], object]) -> None:
        self.send = send

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _place: TracebackType | None
    ) -> None:
        if error is not None:
            self.send(reason_of(error))


class Child:
    """The process that answers on the descriptor `answers`."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.fork: Fork | None = None

    def serve(self, requests: io.BufferedReader) -> None:
        """Answer requests until there is no more."""
        while line := requests.readline(LARGEST_LINE + 1):
            request: Request = json.loads(line)
            with contextlib.suppress(ImportError):  # the fork reports it
                _function(request)  # each later fork has its module
            self._send(self._answer(request))

    def import_libraries(self) -> None:
        """Import what every question needs. A failure answers the first one, and ends the process."""
        with _Reported(lambda reason: self._send(_line("import_error", reason))):
            import_offline()
            for name in ("data", "hparams", "model"):
                importlib.import_module(f"llamafactory.{name}")
        gc.freeze()  # forks need no copy of what the collector would touch

    def end_with_stdin(self, stdin: int) -> NoReturn:
        """End this process and its fork once nobody can write to stdin any more. Runs in a thread."""
        poll = select.poll()
        poll.register(stdin, 0)  # reports the hang-up alone
        poll.poll()
        fork = self.fork
        if fork is not None:
            fork.kill()
        os._exit(0)

    def _answer(self, request: Request) -> bytes:
        """Run a request in a fork, and return the line with its answer."""
        reading, writing = os.pipe()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            _run(request, writing, parent)
        os.close(writing)
        with contextlib.suppress(OSError):  # the fork did it, or has ended
            os.setpgid(pid, pid)
        fork = self.fork = Fork(pid)
        answer = b""
        try:
            for line in _lines(reading, fork, time.monotonic() + request["seconds"]):
                if not line.startswith(PRINTED):
                    answer = line
                    break
                self._send(line)
        except TimeoutError:
            message = _(
                "it took more than {seconds:g} s; max_samples in the recipe takes fewer rows",
                seconds=request["seconds"],
            )
            answer = _line("error", message)
        except OverflowError:
            message = _(
                "its answer is above {size} MiB; max_samples in the recipe takes fewer rows",
                size=LARGEST_LINE >> 20,
            )
            answer = _line("error", message)
        finally:
            os.close(reading)
        if not answer:
            answer = _line("error", _end_of(fork.exit_code()))
        fork.kill()  # what it has started, or itself
        fork.exit_code()
        self.fork = None
        return answer

    def _send(self, line: bytes) -> None:
        _write(self.answers, line)


def _lines(reading: int, fork: Fork, deadline: float) -> Iterator[bytes]:
    """Yield the lines that a fork writes, until it ends.

    `TimeoutError` after the deadline, `OverflowError` for a line beyond the limit.
    """
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    look = _LOOK
    begun: list[bytes] = []
    size = 0
    while True:
        seconds_left = deadline - time.monotonic()
        if seconds_left <= 0:
            raise TimeoutError
        if not poll.poll(1000 * min(look, seconds_left)):
            if fork.has_ended() and not poll.poll(0):
                return
            continue
        chunk = os.read(reading, _CHUNK)
        if not chunk:  # it has closed the pipe, mostly by its end
            poll.unregister(reading)
            look = _LOOK_AFTER_CLOSE
            continue
        *complete, rest = chunk.split(b"\n")
        for end_of_line in complete:
            yield b"".join([*begun, end_of_line, b"\n"])
            begun, size = [], 0
        begun.append(rest)
        size += len(rest)
        if size > LARGEST_LINE:
            raise OverflowError


def _run(request: Request, writing: int, parent: int) -> NoReturn:
    """Answer a request in this fork, and end it without the parent's cleaning up."""
    code = 1
    try:
        with _Reported(lambda reason: _write(writing, _line("error", reason))):
            os.setpgid(0, 0)
            end_with(parent, signal.SIGKILL)
            progress.stream = PrintedLines(writing)
            os.environ.clear()
            os.environ.update(request["environment"])
            os.chdir(request["folder"])
            _write(writing, _line("answer", _result(request)))
        code = 0
    finally:
        os._exit(code)


def _result(request: Request) -> object:
    """What the function of a request returns. The types of its parameters make its arguments of JSON."""
    function = _function(request)
    kinds = get_type_hints(function)
    kinds.pop("return")
    pairs = zip(kinds.values(), request["arguments"], strict=True)
    return function(*[from_json_form(kind, raw) for kind, raw in pairs])


def _function(request: Request) -> Any:
    module, _colon, name = request["function"].partition(":")
    return getattr(importlib.import_module(module), name)


class PrintedLines:
    """A stream whose writes become lines `{"printed": …}` for the asking process."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        """Send a text on at once, without control characters and secrets."""
        _write(self._descriptor, _line("printed", written(text)))
        return len(text)


def _line(key: str, value: object) -> bytes:
    """A line of JSON. It is ASCII, so that names in any encoding come through whole."""
    return json.dumps({key: json_form(value)}).encode("ascii") + b"\n"


def _write(descriptor: int, line: bytes) -> None:
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def reason_of(error: BaseException) -> str:
    """Why a question has no answer: the exception that ended it, in one line."""
    if isinstance(error, MemoryError):
        return _("it needs more memory than it gets; max_samples in the recipe takes fewer rows")
    if isinstance(error, TuneyardError):
        return message_of(error)
    text = " ".join(str(error).split())[:LONGEST_ERROR]
    return f"{type(error).__name__}: {text}"


def _end_of(code: int) -> Message:
    """Why a fork ended without an answer."""
    if code == -signal.SIGKILL:
        return _(
            "its process was ended by SIGKILL, as by the system where memory runs out; max_samples in the "
            "recipe takes fewer rows"
        )
    if code < 0:
        return _("its process was ended by {signal}", signal=signal.Signals(-code).name)
    return _("its process ended with code {code}", code=code)


def main() -> None:
    """Answer the requests on stdin. Only answers reach stdout: what libraries print is dropped."""
    stdin, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where a scheduler ignores it, exit codes are lost
    child = Child(answers)
    threading.Thread(target=child.end_with_stdin, args=(stdin,), daemon=True).start()
    child.import_libraries()
    with os.fdopen(stdin, "rb") as requests:
        child.serve(requests)
    os._exit(0)  # without freeing what was imported, which takes seconds


if __name__ == "__main__":
    main()
