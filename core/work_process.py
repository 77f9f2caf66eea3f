"""python -m tuneyard.core.work_process PARENT DESCRIPTOR: runs one work item of core/execution.py.

The function and its arguments come pickled on the standard input. Its reply is written to the descriptor.
The process ends with its parent.
"""

import os
import pickle
import sys

from tuneyard.core.execution import call, end_with


def work(parent: int, descriptor: int) -> None:
    """Run the item. An error that no user can act on ends the process with a traceback."""
    end_with(parent)
    function, arguments = pickle.load(sys.stdin.buffer)
    reply = call(function, arguments)
    with os.fdopen(descriptor, "wb") as file:
        pickle.dump(reply, file)


if __name__ == "__main__":
    work(int(sys.argv[1]), int(sys.argv[2]))
