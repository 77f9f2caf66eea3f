"""One command of the compiler in this process, bounded in time, with all that it left behind."""

import contextlib
import io
import os
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import click

from tuneyard.compiler.cli import cli
from tuneyard.core.cli.run import run_command

SECONDS = 20
MEGABYTES = 400


class _TooLongError(BaseException):
    """Out of the reach of `except Exception`."""


@dataclass
class Outcome:
    """How a command ended: its exit code, what it printed, what it wrote, and what must not have happened."""

    code: int | None = None
    out: str = ""
    err: str = ""
    wrong: list[str] = field(default_factory=list)


def execute(*arguments: object, program: click.Command = cli) -> Outcome:
    """Run `python -m compiler ARGUMENTS`, or another program, here.

    A crash, a hang or a heap of memory stands in `wrong`.
    """
    outcome = Outcome()
    out, err = io.StringIO(), io.StringIO()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        argv = mock.patch.object(sys, "argv", ["compiler", *map(str, arguments)])
        with _alarm(), argv, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            run_command(program)
    except SystemExit as error:
        outcome.code = error.code if isinstance(error.code, int) else 0
    except _TooLongError:
        outcome.wrong.append(f"more than {SECONDS} s")
    except BaseException as error:  # what no user should see
        if isinstance(error, KeyboardInterrupt):
            raise
        outcome.wrong.append("".join(traceback.format_exception(error)[-4:]))
    outcome.out, outcome.err = out.getvalue(), err.getvalue()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    if grown > MEGABYTES:
        outcome.wrong.append(f"{grown:.0f} MB more than before")
    if outcome.code not in (0, 1, 2, None):
        outcome.wrong.append(f"exit code {outcome.code}")
    if "Traceback" in outcome.err:
        outcome.wrong.append(outcome.err)
    if outcome.code and not outcome.err.strip():
        outcome.wrong.append(f"exit code {outcome.code} without a word")
    return outcome


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Yield an empty folder, the current one until it is removed; nothing waits for the disk."""
    shared_memory = Path("/dev/shm")  # files that never reach a disk, where there are such
    before = Path.cwd()
    place = shared_memory if os.access(shared_memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="tuneyard-fuzz-", dir=place))
    handler = signal.getsignal(signal.SIGTERM)
    try:
        os.chdir(folder)
        # a command sets variables of the environment for the programs that it starts
        with mock.patch.object(os, "fsync", lambda _unused: None), mock.patch.dict(os.environ):
            yield folder
    finally:
        os.chdir(before)
        signal.signal(signal.SIGTERM, handler)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_unused: object) -> None:
        raise _TooLongError

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
