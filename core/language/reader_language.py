"""The language of the reader: that of `--lang`. Explanations of codes also follow the locale."""

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


def current() -> str:
    """Language of tables, plots and verdicts. Files follow no locale: without `--lang`, English."""
    return _of_the_option.get() or ENGLISH


def of_explanations() -> str:
    """Language in which a code is explained: that of `--lang`, otherwise that of the locale."""
    language = _of_the_option.get()
    if language is None:
        language = _of_locale()
    return language


def _of_locale() -> str:
    """Chinese for `zh_CN.UTF-8` and the like. The first variable that is set decides, as in POSIX."""
    for variable in ("LC_ALL", "LC_MESSAGES", "LANG"):
        locale = os.environ.get(variable, "")
        if locale:
            return CHINESE if locale.lower().startswith("zh") else ENGLISH
    return ENGLISH
