"""python -m tuneyard.core.work_process PARENT SOCKET: a worker of core/local_processes.py.

A message is 8 bytes with its length, then pickled content. The parent sends items, the worker sends a reply
to each. It ends when the parent closes the socket or dies.
"""

import os
import pickle
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuneyard.core.execution import call
from tuneyard.core.processes import end_with

LENGTH = struct.Struct("!Q")


@dataclass(frozen=True, slots=True)
class CommonKey:
    """Stands for a `Common` among the arguments of an item that is sent."""

    number: int


@dataclass(frozen=True, slots=True)
class WorkOrder:
    """An item as it is sent, with the values (number, pickled) that its worker does not have yet.

    `outdated`: the numbers of values that no item has any more.
    """

    function: Callable[..., object]
    arguments: tuple[object, ...]
    values: tuple[tuple[int, bytes], ...] = ()
    outdated: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkAnswer:
    """The reply to an order, pickled, and what the worker has printed since the one before."""

    reply: bytes
    output: bytes


def message(content: object) -> bytes:
    """An order or an answer as it is sent."""
    pickled = pickle.dumps(content, pickle.HIGHEST_PROTOCOL)
    return LENGTH.pack(len(pickled)) + pickled


def serve(connection: socket.socket, values: dict[int, Any]) -> None:
    """Run items until the parent closes the connection. `values` has those of each `Common` by number.

    An error that no user can act on is raised: it ends the process with a traceback.
    """
    while True:
        head = _receive(connection, LENGTH.size)
        if head is None:
            return
        content = _receive(connection, LENGTH.unpack(head)[0])
        if content is None:
            return
        order: WorkOrder = pickle.loads(content)
        for number in order.outdated:
            values.pop(number, None)
        for number, pickled in order.values:
            values[number] = pickle.loads(pickled)
        arguments = [
            values[argument.number] if isinstance(argument, CommonKey) else argument
            for argument in order.arguments
        ]
        reply = call(order.function, arguments)
        pickled = pickle.dumps(reply, pickle.HIGHEST_PROTOCOL)  # if it fails, the output must still be there
        answer = message(WorkAnswer(pickled, _take_output()))
        try:
            connection.sendall(answer)
        except BrokenPipeError:  # the parent is gone
            return


def _take_output() -> bytes:
    """What this process has printed. Its file is emptied: a worker may live for days."""
    sys.stdout.flush()
    sys.stderr.flush()
    output = os.pread(1, os.fstat(1).st_size, 0)
    os.ftruncate(1, 0)
    os.lseek(1, 0, os.SEEK_SET)
    return output


def _receive(connection: socket.socket, size: int) -> bytearray | None:
    """Receive this many bytes; None if the other end is closed."""
    content = bytearray(size)
    view = memoryview(content)
    at = 0
    while at < size:
        count = connection.recv_into(view[at:])
        if count == 0:
            return None
        at += count
    return content


def main(parent: int, descriptor: int) -> None:
    """Be a worker of this parent, with this end of a socket."""
    end_with(parent)
    serve(socket.socket(fileno=descriptor), {})


if __name__ == "__main__":
    from tuneyard.core import work_process  # what is pickled must not be of the module __main__

    work_process.main(int(sys.argv[1]), int(sys.argv[2]))
