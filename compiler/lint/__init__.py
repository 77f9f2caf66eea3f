"""Lints: warnings about rows that a model should not be trained on. Each is one file (docs/extending.md).

A lint is a function with a problem code and one of these decorators:

- `@text_lint` (template_tokens.py) looks at the texts of one row.
- `@batch_lint` (empty_answers.py) looks at the columns of some hundred rows.
- `@split_lint` (repeated_rows.py) compares all kept rows by their fingerprints.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from typing import NamedTuple

from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.lint.text_keys import plain_text
from tuneyard.compiler.rows import Batch
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import _
from tuneyard.core.plugins import Plugin, registry


class RowTexts(NamedTuple):
    """The texts of one row: `texts` has all, `answers` those that are learned.

    `placeholders` are texts such as `<image>` for which the row has files.
    """

    texts: Sequence[str]
    answers: Sequence[str]
    placeholders: Collection[str] = ()


@dataclass(frozen=True)
class TextBatch:
    """The texts of a batch of rows by column, for lints of whole columns.

    - `plain`: each text as `plain_text` makes it.
    - `lengths`: the characters of each row.
    - `may_be_blank`: the columns of answers that may be empty.
    """

    rows: Batch
    texts: Mapping[str, Sequence[str]]
    plain: Mapping[str, Sequence[bytes]]
    lengths: Sequence[int]
    may_be_blank: Sequence[str]


@dataclass(frozen=True)
class Splits:
    """The kept rows of a compile: of each split with rows its fingerprints and their summary."""

    spec: Spec
    rows: Mapping[str, Fingerprints]
    summaries: Mapping[str, JsonObject]

    @property
    def first(self) -> str:
        """The split that is trained on: `train`, or the first one."""
        return TRAIN_SPLIT if TRAIN_SPLIT in self.rows else next(iter(self.rows), "")

    def pairs(self) -> Iterator[tuple[Fingerprints, str, Fingerprints]]:
        """Yield the rows that are trained on with the name and the rows of each other split."""
        for name, rows in self.rows.items():
            if name != self.first:
                yield self.rows[self.first], name, rows


@dataclass(frozen=True)
class Lint:
    """What all lints have: the codes of their warnings. The first one is the lint's name."""

    codes: tuple[ProblemCode, ...]
    plugin: Plugin | None = field(default=None, kw_only=True)

    @property
    def name(self) -> str:
        """The name under which it is registered."""
        return str(self.codes[0])


@dataclass(frozen=True)
class TextLint(Lint):
    """A lint of one row's texts. `find` returns the text at fault, "" for none."""

    find: Callable[[RowTexts], str]
    signs: frozenset[bytes]


@dataclass(frozen=True)
class BatchLint(Lint):
    """A lint of a batch. `find` yields the number of a row at fault in the batch, and the field or ""."""

    find: Callable[[TextBatch], Iterable[tuple[int, str]]]


@dataclass(frozen=True)
class SplitLint(Lint):
    """A lint of all kept rows. `find` yields its problems, `columns` are the fingerprints it compares."""

    find: Callable[[Splits], Iterable[Problem]]
    columns: tuple[str, ...]


def text_lint(
    code: ProblemCode, *, signs: Sequence[str] = ()
) -> Callable[[Callable[[RowTexts], str]], TextLint]:
    """Declare a function as a lint of one row's texts. The code's `template` has the field `text`.

    Rows are only given to it if one in some hundred has one of the `signs`, in any case and with any blanks
    inside: a few letters or a sign that every text at fault has. A control character stands for all of them.
    Without signs each row is given to it, which takes time.
    """
    plain_signs = frozenset(map(plain_text, signs))
    return lambda function: TextLint((code,), function, plain_signs)


def batch_lint(code: ProblemCode) -> Callable[[Callable[[TextBatch], Iterable[tuple[int, str]]]], BatchLint]:
    """Declare a function as a lint of a batch. The code's `template` is the message."""
    return lambda function: BatchLint((code,), function)


def split_lint(
    *codes: ProblemCode, columns: Sequence[str] = ()
) -> Callable[[Callable[[Splits], Iterable[Problem]]], SplitLint]:
    """Declare a function as a lint of all kept rows, which yields problems of these codes.

    `columns` are those of the fingerprints (`COLUMNS`) that it compares.
    """
    return lambda function: SplitLint(codes, function, tuple(columns))


@cache
def lints() -> tuple[Lint, ...]:
    """Our lints and those of plug-ins, by code. `PluginError` names a plug-in that cannot be used."""
    expected = "function with @text_lint, @batch_lint or @split_lint"
    registered: Mapping[str, Lint] = registry("tuneyard.lints", __name__, Lint, expected)
    codes: set[str] = set()
    for lint in registered.values():  # ours come first
        if lint.plugin is not None:
            with lint.plugin.guarded():
                _check_declaration(lint, codes)
        codes.update(lint.codes)
    return tuple(sorted(registered.values(), key=attrgetter("name")))


def _check_declaration(lint: Lint, taken: Collection[str]) -> None:
    """Refuse a plug-in's lint whose codes cannot be used. `taken` are those of the lints before it."""
    for code in lint.codes:
        if not isinstance(code, ProblemCode):
            raise TypeError(_("found the code {code!r}, expected a ProblemCode", code=code))
        if not code.startswith("W9"):
            raise ValueError(
                _("found the code {code}, expected W900 to W999: the others are ours", code=code)
            )
        if code in taken:
            raise ValueError(_("another lint has the code {code}", code=code))
    if not isinstance(lint, SplitLint) and not lint.codes[0].template:
        raise ValueError(_("the code {code} has no template, which is the message", code=lint.codes[0]))


def first_match(pattern: re.Pattern[str], texts: Iterable[str]) -> str:
    """The first match of the pattern in the texts, "" without one."""
    for text in texts:
        match = pattern.search(text)
        if match:
            return match[0]
    return ""
