"""Errors that a user can act on, and the one door through which every command leaves.

Exit codes: 0 clean, 1 wrong content of data, recipe, adapter or registry (or a program of ours failed),
2 the request cannot be served as asked, 130/143 interrupted.
"""

import contextlib
import errno
import json
import os
import re
import select
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from operator import methodcaller
from pathlib import Path
from typing import NoReturn

import click

from tuneyard.core.packages import missing

SHOWN = 20
_LINE_ENDS = re.compile("[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]")


class TuneyardError(Exception):
    """What a user did or gave cannot be used; the message says what was found and what to do."""

    exit_code = 1


class ContentError(TuneyardError):
    """The content of data, recipe, adapter or registry is wrong, or a program we started failed."""


class RequestError(TuneyardError):
    """Wrong arguments, a missing path or dataset, no permission, a missing extra, no network."""

    exit_code = 2


def need(*modules: str) -> None:
    """Check that these modules are installed without importing them.

    `RequestError` names the first that is missing and the command that installs it.
    """
    for module in modules:
        if find_spec(module) is None:
            raise RequestError(missing(module))


class ResumableError(click.Abort):
    """Ctrl-C in a command that can say how its work is resumed; `str()` is that sentence."""


@contextlib.contextmanager
def resumed_by(describe: Callable[[], str]) -> Iterator[None]:
    """Say after Ctrl-C how the work of this block, or of the function so decorated, is resumed."""
    try:
        yield
    except KeyboardInterrupt as error:
        click.echo(err=True)  # after the terminal's ^C
        raise ResumableError(describe()) from error


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, as one line: place, code, field, found, expected, fix.

    `place` is `file:line`, `file row N` or the like; codes are E… and W…, see docs/problems.md.
    """

    code: str
    place: str
    message: str
    field: str = ""
    hint: str = ""

    @property
    def is_error(self) -> bool:
        """Whether it is an error, no warning or note."""
        return self.code.startswith("E")

    def line(self) -> str:
        """Return `place: code field: message; hint` in one line, the form of every problem that we print."""
        field = f" {self.field}" if self.field else ""
        hint = f"; {self.hint}" if self.hint else ""
        return one_line(f"{self.place}: {self.code}{field}: {self.message}{hint}")


def problems_of_file(error: ContentError, code: str, path: Path) -> list[Problem]:
    """Return each line of an error about a file (`FILE:LINE: message`) as a problem at its place."""
    problems = []
    for line in str(error).splitlines():
        place, separator, message = line.partition(": ")
        is_place = separator and (place == str(path) or place.startswith(f"{path}:"))
        problems.append(Problem(code, place, message) if is_place else Problem(code, str(path), line))
    return problems


class ProblemsError(ContentError):
    """Several problems found in one pass; `str()` gives the first 20, the total and the counts."""

    def __init__(self, problems: Iterable[Problem], subject: str) -> None:
        self.problems = list(problems)
        self.subject = subject
        text = summarise(self.problems)
        names_subject = text.startswith((f"{subject}:", f"{subject} "))
        super().__init__(text if names_subject else f"{subject}: {text}")


def summarise(
    problems: list[Problem], show_all: bool = False, counts: Mapping[str, int] | None = None
) -> str:
    """Return problems (20 unless `show_all`) above a total with counts by code, `counts` if given."""
    counts = Counter(p.code for p in problems) if counts is None else counts
    shown = problems if show_all else problems[:SHOWN]
    by_code = ", ".join(f"{code} {n}" for code, n in sorted(counts.items()))
    total = sum(counts.values())
    rest = total - len(shown)
    more = f"\n… {rest} more (--all shows every one)" if rest else ""
    return "\n".join(p.line() for p in shown) + f"{more}\n{counted(total, 'problem')} ({by_code})"


# --max_new_tokens, as scripts with argparse write it, is --max-new-tokens: Click normalises every name so.
CLI: dict[str, object] = {
    "token_normalize_func": methodcaller("replace", "_", "-"),
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
}


def run(command: click.Command) -> NoReturn:
    """Run a Click command and leave with the exit codes of all commands; a user's mistake is one message."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if not sys.stderr.isatty():  # no bars in files and pipes, nor of what we start: tqdm reads it at import
        os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        code = _run(command)
        if sys.stdout:  # None where who started us closed it
            sys.stdout.flush()
    except OSError as error:
        if error.errno == errno.EPIPE and _reader_is_gone():
            for stream in (1, 2):  # what is still buffered goes nowhere: Python's exit has nothing to say
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            sys.exit(141)
        click.echo(f"error: {describe_os_error(error)}", err=True)
        code = 2
    sys.exit(code)


def _run(command: click.Command) -> int:
    try:
        code = command.main(standalone_mode=False)
    except click.Abort as error:
        click.echo(f"interrupted; {str(error) or 'the same command starts again'}", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return 2
    except TuneyardError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except ImportError as error:
        if not error.name or error.name.partition(".")[0] == "tuneyard":
            raise  # a module of ours: a defect, not something to install
        absent = isinstance(error, ModuleNotFoundError)
        click.echo(f"error: {missing(error.name) if absent else f'{error}; run make setup again'}", err=True)
        return 2
    except SystemExit:
        if type(sys.stdout).__name__ == "_PacifyFlushWrapper":  # Click leaves so at any broken pipe
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE)) from None
        raise
    return code if isinstance(code, int) else 0


def _reader_is_gone() -> bool:
    """Whether who read our output went away (`… | head`): then poll(2) reports an error of the pipe."""
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def describe_os_error(error: OSError) -> str:
    """Return `path: reason` for an operating system error, e.g. `out/x: No space left on device`."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def show_value(value: object) -> str:
    """Return a value as JSON (`null`, `true`, `"text"`), cut at 60 characters, for messages."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except TypeError:
        text = str(value)
    except (ValueError, RecursionError):  # more than 4300 digits, nested too deep
        text = f"a {type(value).__name__} too large to show"
    text = text.encode(errors="backslashreplace").decode()  # halves of characters, which no output takes
    return text if len(text) <= 60 else f"{text[:59]}…"


def one_line(text: str) -> str:
    """Return a text with its line breaks and control characters escaped: a file name may contain them."""
    return _LINE_ENDS.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


def counted(number: int, noun: str) -> str:
    """Return `1 error`, `2 errors`."""
    return f"{number} {noun}{'s' * (number != 1)}"


def size_words(size: float) -> str:
    """Return bytes in the largest decimal unit that leaves a whole number before the point: `3.6 MB`."""
    units = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3}
    for unit, scale in units.items():
        if size >= scale:
            return f"{size / scale:,.1f} {unit}"
    return counted(round(size), "byte")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `did you mean "x"?` for the known name nearest to `name`, or an empty string."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f'did you mean "{close[0]}"?' if close else ""
