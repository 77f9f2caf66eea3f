"""Shared by all packages: errors, files, prompts, weights.

Importing it exits with code 2 if a required package is not installed.
"""

import sys

if sys.platform == "win32":  # no fcntl, no fork, no make
    sys.stderr.write(
        "error: Tuneyard does not run on native Windows, but in WSL: `wsl --install`, then make setup there\n"
    )
    sys.exit(2)
if sys.version_info < (3, 11):  # noqa: UP036  # an older Python gets a message, not a traceback
    version_here = ".".join(map(str, sys.version_info[:2]))
    sys.stderr.write(
        "error: Tuneyard needs Python 3.11 or newer, found " + version_here + "; run make setup\n"
    )
    sys.exit(2)

from importlib.util import find_spec

from tuneyard.core.installation.checkout import version as version
from tuneyard.core.installation.packages import CORE, missing

for package in CORE:
    if find_spec(package) is None:
        sys.stderr.write("error: " + missing(package) + "\n")
        sys.exit(2)
