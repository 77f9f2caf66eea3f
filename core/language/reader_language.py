"""The language of the reader: that of `--lang`, otherwise that of the locale."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

import click

ENGLISH, CHINESE = "en", "zh"
_of_the_option: ContextVar[str | None] = ContextVar("language", default=None)


@contextlib.contextmanager
def in_language(name: str) -> Iterator[None]:
    """Write texts in this language (`en` or `zh`) inside the block."""
    token = _of_the_option.set(name)
    try:
        yield
    finally:
        _of_the_option.reset(token)


def _write_in(_context: click.Context, _: click.Parameter, name: str | None) -> None:
    if name is not None:
        _of_the_option.set(name)


LANG = click.Option(
    ["--lang"],
    is_eager=True,  # before options that may be wrong
    type=click.Choice([ENGLISH, CHINESE]),
    expose_value=False,
    callback=_write_in,
    help="Language of texts and plots.  [default: the locale's]",
)
"""Sets the language of this process, also for the error that ends it; the command itself gets no value."""


def current() -> str:
    """Language of printed texts and of plots: that of `--lang`, otherwise that of the locale.

    Chinese for `zh_CN.UTF-8` and the like. The first variable that is set decides, as in POSIX.
    """
    name = _of_the_option.get()
    if name:
        return name
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        locale = os.environ.get(variable, "")
        if locale:
            return CHINESE if locale.lower().startswith("zh") else ENGLISH
    return ENGLISH
