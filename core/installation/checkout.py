"""Location and version of this Tuneyard. Every file that it writes records the version."""

import functools
import os
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
"""The folder that holds core/, compiler/, recipes/, adapters/ and eval/: the root of a checkout."""


def bundled(path: Path) -> Path:
    """Fall back to the bundled file of this name if `path` does not exist."""
    bundled_path = ROOT / path
    if not path.exists() and bundled_path.is_file():
        return bundled_path
    return path


def python_path() -> str:
    """PYTHONPATH for our subprocesses: the folder of this `tuneyard` first, in a checkout and installed."""
    packages = ROOT
    if not (ROOT / "tuneyard").is_dir():  # installed: our packages are in site-packages/tuneyard
        packages = ROOT.parent
    return f"{packages}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)


def version() -> dict[str, str]:
    """`{"version": "0.1.0", "commit": "<40 hex digits>"}`, without a commit outside of a checkout."""
    return dict(_version())


@functools.cache  # a process that runs for hours keeps the commit that it started with
def _version() -> Mapping[str, str]:
    commit = head(ROOT)
    declared = ROOT / "pyproject.toml"
    if declared.is_file():
        import tomllib  # 20 ms that most commands do not need

        release = str(tomllib.loads(declared.read_text(encoding="utf-8"))["project"]["version"])
    else:  # installed
        from importlib import metadata  # 30 ms that a checkout does not need

        release = metadata.version("tuneyard")
    if commit is None:
        return {"version": release}
    return {"version": release, "commit": commit}


def head(root: Path) -> str | None:
    """Commit that is checked out in `root`, None outside of a repository (gitrepository-layout(5))."""
    try:
        git = root / ".git"
        if git.is_file():  # a worktree or submodule: "gitdir: PATH"
            git = root / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        commit_or_ref = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not commit_or_ref.startswith("ref: "):
            return commit_or_ref
        ref = commit_or_ref.removeprefix("ref: ")
        folders = [git]
        shared = git / "commondir"
        if shared.is_file():
            folders.append(git / shared.read_text(encoding="utf-8").strip())
        for folder in folders:
            if (folder / ref).is_file():
                return (folder / ref).read_text(encoding="utf-8").strip()
        packed = (folders[-1] / "packed-refs").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    for line in packed:
        if line.endswith(f" {ref}"):
            return line.split()[0]
    return None
