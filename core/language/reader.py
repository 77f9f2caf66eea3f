"""The language of the reader: that of `--lang`, otherwise of the locale."""

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar

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


def write_in(name: str) -> None:
    """Write the texts of this process in a language from now on, also that of the error that ends it."""
    _of_the_option.set(name)


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
