"""Location and version of this Tuneyard. Every file that it writes records the version."""

import contextlib
import functools
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
"""The folder that holds core/, compiler/, recipes/, adapters/ and eval/: the root of a checkout."""


def python_path() -> str:
    """PYTHONPATH for our subprocesses: the folder of this `tuneyard` first, in a checkout and installed."""
    packages = ROOT
    if not (ROOT / "tuneyard").is_dir():  # installed: our packages are in site-packages/tuneyard
        packages = ROOT.parent
    return f"{packages}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)


@functools.cache
def release(root: Path = ROOT) -> str:
    """The version, such as `0.1.0`."""
    declared = root / "pyproject.toml"
    if declared.is_file():
        import tomllib  # 20 ms that most commands do not need

        return str(tomllib.loads(declared.read_text(encoding="utf-8"))["project"]["version"])
    from importlib import metadata  # 30 ms that a checkout does not need

    return metadata.version("tuneyard")


@functools.cache  # a process that runs for hours keeps the commit that it started with
def version(root: Path = ROOT) -> Mapping[str, str]:
    """`{"version": "0.1.0", "commit": "<40 hex digits>"}` of a checkout.

    Without a commit if it is no repository, or git is missing.
    """
    facts = {"version": release(root)}
    if (root / ".git").exists():  # a folder above may be a repository of other files
        command = ["git", "-C", str(root), "rev-parse", "--verify", "--quiet", "HEAD"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            facts["commit"] = commit.strip()
    return facts
