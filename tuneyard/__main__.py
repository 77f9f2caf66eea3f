"""The script `tuneyard`, and `python -m tuneyard` for an environment whose scripts are not on the PATH.

Ctrl-C during the first imports ends it as SIGTERM does, without a traceback. `python -m` puts the current
folder, where mailed files lie, before all module paths: it goes before the first import of a file.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]

import signal

_handler = signal.getsignal(signal.SIGINT)
if _handler is signal.default_int_handler:  # a script's background jobs ignore it
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from tuneyard.core.cli.main import main  # noqa: E402  # the handler comes before all other imports

signal.signal(signal.SIGINT, _handler)


if __name__ == "__main__":
    main()
