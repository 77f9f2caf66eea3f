"""Control characters, and the user's keys, never reach a terminal: all streams write through here.

A dataset's text, a file's name or a server's answer could otherwise move the cursor, set the title or the
clipboard, hide what was printed before, or show a key. Calls of `print` need not know which text is whose.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from tuneyard.core.text.secrets import hide_users_secrets

UNSEEN = "\x7f-\x9f\u202a-\u202e\u2066-\u2069"
"""For patterns: controls above ASCII, and what turns a line around (`gpj.exe` reads `exe.jpg`)."""
_CONTROLS = re.compile(f"[\x00-\x08\x0b-\x1f{UNSEEN}]")
"""All but the tab and the line feed."""
_OF_BARS = re.compile(r"\r(?:\x1b\[K)?(?=[^\n]*\Z)|(?:\n*(?:\x1b\[A)+)\Z")
"""What our progress bars begin a line with (and tqdm's move to the line above): such a write ends no line."""


def visible(text: str) -> str:
    r"""A text with its control characters written out, as JSON has them: ESC is `\u001b`.

    So JSON on stdout keeps its meaning.
    """
    return _CONTROLS.sub(lambda control: f"\\u{ord(control[0]):04x}", text)


def written(text: str) -> str:
    """One write to a stream, without controls and secrets. The beginning of a progress bar stays."""
    bar = _OF_BARS.match(text)
    if bar is None:
        return visible(hide_users_secrets(text))
    return bar[0] + visible(hide_users_secrets(text[bar.end() :]))


def guard(stream: TextIO) -> None:
    """Let a stream write through `written` from now on."""
    write = stream.write

    def write_visible(text: str) -> int:
        write(written(text))
        return len(text)

    stream.write = write_visible  # type: ignore[method-assign]  # logging and tqdm keep the stream itself


@contextlib.contextmanager
def guarded_output() -> Iterator[None]:
    """Guard stdout and stderr inside the block."""
    streams = [stream for stream in (sys.stdout, sys.stderr) if stream is not None]  # closed by the parent
    before: list[Callable[[str], int]] = [stream.write for stream in streams]
    for stream in streams:
        guard(stream)
    try:
        yield
    finally:
        for stream, write in zip(streams, before, strict=True):
            stream.write = write  # type: ignore[method-assign]
