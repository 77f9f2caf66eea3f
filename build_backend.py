"""What `pip install` of this checkout runs (PEP 517): an editable install works, every other one is refused.

No wheel is built yet: it would lack the files beside the code (specs, schemas, suites).
The installation would end without an error, and commands would fail long after it.
"""

import sys
from typing import NoReturn

from setuptools import build_meta

ConfigSettings = dict[str, str | list[str] | None]

REFUSAL = """\
error: Tuneyard cannot be installed as a wheel yet: the wheel would lack specs, schemas and suites.
Install it as a checkout that stays where it is: clone the repository, run "make setup" in the clone (or
"make setup-core" for compiling, merging and comparing only), then "source .venv/bin/activate".
In an environment of your own: pip install -e CLONE
"""

build_editable = build_meta.build_editable
get_requires_for_build_editable = build_meta.get_requires_for_build_editable
prepare_metadata_for_build_editable = build_meta.prepare_metadata_for_build_editable


def get_requires_for_build_wheel(_config_settings: ConfigSettings | None = None) -> NoReturn:
    """Refuse before the installer downloads what the build requires."""
    _refuse()


def build_wheel(
    _wheel_directory: str,
    _config_settings: ConfigSettings | None = None,
    _metadata_directory: str | None = None,
) -> NoReturn:
    """Refuse: the wheel would lack the files beside the code."""
    _refuse()


def build_sdist(_sdist_directory: str, _config_settings: ConfigSettings | None = None) -> NoReturn:
    """Refuse: an installer would build a wheel from the source distribution."""
    _refuse()


def _refuse() -> NoReturn:
    """End with exit code 1 and no traceback; the installer prints the text and fails."""
    sys.stderr.write(REFUSAL)
    sys.exit(1)
