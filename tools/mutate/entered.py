"""Notes of which functions of ours each test enters.

Python runs a copy of this file as sitecustomize.py in the commands that tests start: they note it too.
It imports little, since tests measure the memory and the time of those commands.
"""

import json
import os
import sys
import threading
from contextlib import suppress
from types import CodeType, FrameType

NOTES = "TUNEYARD_ENTERED"  # the file of notes, in the environment
TEST = "TUNEYARD_TEST"  # whom they are about


class Notes:
    """Notes in a file beside the checkout that all processes of a run append to: a line for each function."""

    def __init__(self, path: str) -> None:
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.root = os.path.join(os.path.dirname(path), "checkout", "")  # noqa: PTH118, PTH120  # without pathlib
        self.seen: dict[str, dict[int, CodeType]] = {}
        self.about(os.environ.get(TEST, ""))

    def about(self, test: str) -> None:
        """Say whom the next notes are about: a test, a fixture of many tests, or nobody ("")."""
        os.environ[TEST] = self.test = test
        self.known = self.seen.setdefault(test, {})

    def write(self, *note: object) -> None:
        """Append one note; none where a test allows no larger files."""
        with suppress(OSError):
            os.write(self.file, (json.dumps(note) + "\n").encode())

    def start(self) -> None:
        """Note every function that is entered from now on."""
        sys.settrace(self._enter)
        threading.settrace(self._enter)

    def _enter(self, frame: FrameType, _event: str, _argument: object) -> None:
        code = frame.f_code
        if id(code) not in self.known:
            self.known[id(code)] = code
            if code.co_filename.startswith(self.root):
                file = code.co_filename.removeprefix(self.root).removeprefix("tuneyard/")
                self.write("entered", self.test, file, code.co_firstlineno)


if NOTES in os.environ and __name__ == "sitecustomize":
    Notes(os.environ[NOTES]).start()
