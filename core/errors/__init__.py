"""User-facing errors, and the time limit for code from users.

Exit codes: 0 clean, 1 wrong content of data, recipe, adapter or registry (or a subprocess failed),
2 wrong request, 130/143 interrupted, 141 closed pipe.
"""

import contextlib
import errno
import importlib
import json
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from types import FrameType

import click

from tuneyard.core.errors.problem_codes import guide
from tuneyard.core.installation.packages import missing
from tuneyard.core.language.message import _, counted, joined, message_of, relative, with_texts
from tuneyard.core.text.quoting import one_line

SHOWN = 20
LONGEST_NAME = 200  # characters of a name that is compared with others
MOST_CHOICES = 10_000
TIME_LIMIT = 5.0  # seconds of CPU time for code of a user
TERMINATED = 128 + signal.SIGTERM  # exit code
OS_FIXES = {
    errno.ENOSPC: _("free some space, or write to another disk (temporary files: TMPDIR)"),
    errno.EDQUOT: _("free some space, or write to another disk"),
    errno.EROFS: _("write to a folder that is yours"),
    errno.EACCES: _("name a file or folder that is yours"),
    errno.EPERM: _("name a file or folder that is yours"),
    errno.EISDIR: _("name a file in it"),
    errno.ELOOP: _("remove these links, or name another path"),
}
_JSON = json.JSONEncoder(ensure_ascii=False)  # `json.dumps` makes one at each call: rows may all be wrong


class TuneyardError(Exception):
    """Error that a user can fix. The message names the place, the value and the fix."""

    exit_code = 1

    @property
    def message(self) -> str:
        """What it says, as the `Message` it was raised with, so that it can be said in another language."""
        return message_of(self)

    def __reduce__(self) -> tuple[object, ...]:
        """Come back from a worker unchanged, also where its class has other arguments than `args`."""
        return Exception.__new__, (type(self), *self.args), self.__dict__


class ContentError(TuneyardError):
    """The content of data, recipe, adapter or registry is wrong, or a subprocess failed."""


class LimitError(ContentError):
    """Code of a file, such as a regular expression or a chat template, took too much time, memory or text."""


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


def import_early(*modules: str) -> None:
    """Import modules that a command needs at its end, before it writes anything.

    `RequestError` names a package that is missing: of these modules, or one that they need.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise RequestError(missing(error.name or module)) from error


class ResumableError(click.Abort):
    """Ctrl-C, or SIGTERM, in a command that can be resumed. `str()` is the sentence on how to resume it."""


@contextlib.contextmanager
def bounded(code: str) -> Iterator[None]:
    """Stop the block with `LimitError` after `TIME_LIMIT`. The message names the `code`.

    It is a regular expression of a user, such as `(a+)+b`: `re` lets signals through while it works, so a
    timer ends it. Blocks are not nested. Only the main thread gets signals: in another one the block runs
    without a bound. Templates have limits of their own: core/llamafactory/prompt/templates.py.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise LimitError(
            _(
                "{code}: stopped after {seconds:g} s of computing; repeats inside repeats, such as (a+)+, "
                "can take for ever: write it without them",
                code=code,
                seconds=TIME_LIMIT,
            )
        )

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, TIME_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextlib.contextmanager
def resumed_by(describe: Callable[[], str]) -> Iterator[None]:
    """Print after Ctrl-C or SIGTERM how the work of this block, or of the decorated function, is resumed."""
    try:
        yield
    except KeyboardInterrupt as error:
        click.echo(err=True)  # after the terminal's ^C
        raise ResumableError(describe()) from error


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem, printed as one line: place, code, field, found, expected, fix.

    `place` is `file:line`, `file row N` or the like; codes are E… and W…, see docs/problems.md.
    """

    code: str
    place: str
    message: str
    field: str = ""
    hint: str = ""

    @property
    def is_error(self) -> bool:
        """True for an error, False for a warning or note."""
        return self.code.startswith("E")

    def line(self) -> str:
        """Format as `place: code field: message; hint`, the form of every printed problem."""
        line = _(
            "{place}: {code}{field}: {message}",
            place=one_line(relative(self.place)),
            code=self.code,
            field=one_line(f" {self.field}") if self.field else "",
            message=with_texts(self.message, one_line),
        )
        if not self.hint:
            return line
        hint = with_texts(self.hint, one_line)
        if self.message.endswith("?"):
            return _("{problem} {fix}", problem=line, fix=hint)
        return _("{problem}; {fix}", problem=line, fix=hint)


class ProblemsError(ContentError):
    """All problems of one pass. `str()` shows the first 20, the total and the counts by code."""

    def __init__(self, problems: Iterable[Problem], subject: str) -> None:
        self.problems = list(problems)
        text = summarise(self.problems)
        names_subject = text.startswith((f"{subject}:", f"{subject} "))
        if not names_subject:
            text = _("{subject}: {problems}", subject=subject, problems=text)
        super().__init__(text)


def by_code(counts: Mapping[str, int]) -> str:
    """Numbers of problems, as `E101 2, W201 1`."""
    return ", ".join(f"{code} {count}" for code, count in sorted(counts.items()))


def summarise(
    problems: list[Problem], show_all: bool = False, counts: Mapping[str, int] | None = None
) -> str:
    """List problems, then the total with counts by code.

    Unless `show_all`, errors come first, there are 20 lines at most, and equal messages share one if need be.
    `counts` are given if `problems` is only the beginning of a longer list.
    """
    if counts is None:
        counts = Counter(problem.code for problem in problems)
    if not show_all:
        problems = sorted(problems, key=lambda problem: not problem.is_error)
    is_grouped = len(problems) > SHOWN and not show_all
    groups: dict[object, list[Problem]] = {}
    for number, problem in enumerate(problems):
        groups.setdefault(problem.message if is_grouped else number, []).append(problem)
    total = rest = sum(counts.values())
    lines = []
    for first, *others in list(groups.values())[: None if show_all else SHOWN]:
        line = first.line()
        if others:
            line = _("{problem} (and {number} more like it)", problem=line, number=len(others))
        lines.append(line)
        rest -= 1 + len(others)
    if rest:
        lines.append(_("… {rest} more (--all shows every one)", rest=rest))
    problems_of_all = counted(total, "problem", "problems")
    lines.append(_("{problems} ({by_code})", problems=problems_of_all, by_code=by_code(counts)))
    lines += guide(counts)
    return joined(lines, "\n")


def dangling(link: Path) -> str:
    """Words for a link that leads nowhere, e.g. `a link to /gone.csv, which does not exist`."""
    return _("a link to {target}, which does not exist", target=link.readlink())


def describe_os_error(error: OSError) -> str:
    """Format an operating system error as `path: reason`, e.g. `out/x: No space left on device`."""
    reason = str(error.strerror or error)
    if error.errno in OS_FIXES:
        reason = _("{reason}: {fix}", reason=reason, fix=OS_FIXES[error.errno])
    if error.filename:
        path = Path(error.filename)
        if error.errno == errno.ENOENT and path.is_symlink():
            reason = _("it is {link}: remove it, or bring back what it leads to", link=dangling(path))
        return _("{path}: {reason}", path=path, reason=reason)
    return reason


def show_value(value: object) -> str:
    """Format a value for a message: JSON (`null`, `true`, `"text"`), cut at 60 characters."""
    try:
        text = _JSON.encode(value)
    except TypeError:
        text = str(value)
    except (ValueError, RecursionError):  # more than 4300 digits, nested too deep
        return _("a {type} too large to show", type=type(value).__name__)
    text = text.encode(errors="backslashreplace").decode()  # halves of characters cannot be encoded
    if len(text) > 60:
        return f"{text[:59]}…"
    return text


def show_values(values: Iterable[object]) -> str:
    """Format values for a message, each as `show_value` does, with commas between them."""
    return joined(map(show_value, values))


def wrong_value(place: object, value: object, expected: str) -> ContentError:
    """The error for a value of another kind: `rows.jsonl:3: found "a", expected an object`."""
    return ContentError(
        _(
            "{place}: found {value}, expected {expected}",
            place=relative(place),
            value=show_value(value),
            expected=expected,
        )
    )


def unexpected(place: object, field: str, value: object, expected: str) -> ContentError:
    """The error for a field of another kind: `rows.jsonl:3: row: found "a", expected a number`."""
    return wrong_value(f"{relative(place)}: {field}", value, expected)


def nearest_name(name: str, choices: Iterable[str]) -> str:
    """The choice nearest to `name` in any case, "" if none is similar.

    A choice that begins with `name` (adamw_torch, mine.yaml, accuracy) is nearer than one of similar letters.
    Of a file's many or long names the first short ones are compared: a comparison takes time.
    """
    import difflib

    if len(name) > LONGEST_NAME:
        return ""
    choices = islice((choice for choice in choices if len(choice) <= LONGEST_NAME), MOST_CHOICES)
    choice_by_lower = {choice.lower(): choice for choice in choices}
    name = name.lower()
    close = [choice for choice in choice_by_lower if choice.startswith(name) and len(name) > 1]
    if not close:
        close = difflib.get_close_matches(name, choice_by_lower, n=1, cutoff=0.66)
    return choice_by_lower.get(next(iter(close), ""), "")


def nearest(name: str, choices: Iterable[str], otherwise: str = "") -> str:
    """Suggest the choice nearest to `name` as `did you mean "x"?`, or `otherwise` if none is similar."""
    near = nearest_name(name, choices)
    return _('did you mean "{name}"?', name=near) if near else otherwise
