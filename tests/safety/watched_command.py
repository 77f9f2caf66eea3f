"""Run a command and note its connections: python -m tests.safety.watched_command FILE WORDS…

Each connection becomes a line of FILE, but those to sockets with a path.
"""

import os
import sys
import tempfile
from typing import Any

from testing.forks import run_as_main

CONNECTIONS = ("socket.connect", "socket.getaddrinfo", "socket.sendto")
"""Audit events of connections and of the names that they need."""


def main(notes: str, *words: str) -> int:
    descriptor = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CONNECTIONS:
            return
        address = arguments[1] if event == "socket.connect" else arguments
        if not isinstance(address, str):
            os.write(descriptor, f"{event} {address}\n".encode())

    tempfile.tempdir = None  # Python remembers the folder of the process of which this is a fork
    sys.addaudithook(note)
    return run_as_main(["-m", "tuneyard", *words])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
