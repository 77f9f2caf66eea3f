"""The language of the reader: that of `--lang`, otherwise that of the locale; and the texts in it."""

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path

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


@functools.cache
def catalogue(name: str) -> Mapping[str, str]:
    """Texts of `NAME.json` in this folder by their English, or by their code; {} for English."""
    if name == ENGLISH:
        return {}
    file = Path(__file__).with_name(f"{name}.json")
    texts: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return texts
