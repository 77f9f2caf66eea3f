"""Where Tuneyard itself lies, and which version of it runs: written into everything that it makes."""

import functools
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The folder that holds core/, compiler/, recipes/, adapters/ and eval/: the root of a checkout."""


def bundled(path: Path) -> Path:
    """Return a path as it is where it exists, else the file of that name in the checkout, if there is one."""
    ours = ROOT / path
    return ours if not path.exists() and ours.is_file() else path


def version() -> dict[str, str]:
    """Return `{"version": "0.1.0", "commit": "<40 hex digits>"}`; no commit where this is no checkout."""
    return dict(_version())


@functools.cache  # of a process that runs for hours: the commit that it began with
def _version() -> Mapping[str, str]:
    commit, declared = head(ROOT), ROOT / "pyproject.toml"
    if declared.is_file():
        import tomllib  # 20 ms that most commands do not need

        release = str(tomllib.loads(declared.read_text(encoding="utf-8"))["project"]["version"])
    else:  # the installed one
        from importlib import metadata  # 30 ms that a checkout does not need

        release = metadata.version("tuneyard")
    return {"version": release, **({"commit": commit} if commit else {})}


def head(root: Path) -> str | None:
    """Return the commit checked out in `root` by gitrepository-layout(5), None where there is none."""
    try:
        git = root / ".git"
        if git.is_file():  # a worktree or submodule: "gitdir: PATH"
            git = root / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
        found = (git / "HEAD").read_text(encoding="utf-8").strip()
        if not found.startswith("ref: "):
            return found
        name, shared = found.removeprefix("ref: "), git / "commondir"
        folders = [git, git / shared.read_text(encoding="utf-8").strip()] if shared.is_file() else [git]
        if there := next((folder / name for folder in folders if (folder / name).is_file()), None):
            return there.read_text(encoding="utf-8").strip()
        packed = (folders[-1] / "packed-refs").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)
