"""Location and version of this Tuneyard. Every file that it writes records the version."""

import contextlib
import functools
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
"""The folder that holds core/, compiler/, recipes/, adapters/ and eval/: the root of a checkout."""


SAFE_PATH = "PYTHONSAFEPATH"
"""With this variable Python leaves the current folder, where mailed files lie, out of its module paths."""


def packages_folder() -> Path:
    """The folder that holds this `tuneyard`: a checkout, or site-packages."""
    if (ROOT / "tuneyard").is_dir():
        return ROOT
    return ROOT.parent  # installed: our packages are in site-packages/tuneyard


def python_variables() -> dict[str, str]:
    """Environment variables of every Python that we start, also through a library.

    It imports modules from the folder of this `tuneyard` first, and none from the current folder: a
    `socket.py` beside a dataset would run there. An empty entry of PYTHONPATH means the current folder.
    """
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    users_folders = [entry for entry in entries if entry and Path(entry) != Path()]
    paths = os.pathsep.join([str(packages_folder()), *users_folders])
    return {"PYTHONPATH": paths, SAFE_PATH: "1"}


@contextlib.contextmanager
def environment_set(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process inside the block, for libraries that start processes without a choice."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


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
