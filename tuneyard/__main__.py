"""The script `tuneyard`, and `python -m tuneyard` for an environment whose scripts are not on the PATH.

`python -m` puts the current folder, where mailed files lie, before all module paths: it goes before the first
import of a file.
"""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]

from typing import NoReturn

from tuneyard.core.installation.start import start


def main() -> NoReturn:
    """Run `tuneyard`."""
    start("tuneyard.cli")


if __name__ == "__main__":
    main()
