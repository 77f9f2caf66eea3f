"""Where progress about LLaMA-Factory's work is shown. In a fork of child.py it reaches the asking process."""

import sys
from typing import Protocol


class Writable(Protocol):
    """What a progress bar writes to."""

    def write(self, text: str, /) -> object:
        """Write a text."""


stream: Writable = sys.stderr
