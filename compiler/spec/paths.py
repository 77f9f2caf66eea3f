"""The paths in a spec: `source.files`, `source.media_dir`, `like: x.yaml` and `as: x.yaml`.

They are relative to the folder of the spec. Those of a bundled spec are packaged files, or files that a user
puts into the current folder.
"""

import glob
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tuneyard.core.errors import RequestError
from tuneyard.core.files import JsonObject, near_name
from tuneyard.core.files.links import own_file
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import _

YAML = (".yaml", ".yml")
ADDRESS = "://"


def with_paths_from(folder: Path, raw: JsonObject, *, is_bundled: bool = False) -> JsonObject:
    """A spec as it was read, with its paths in `folder` as paths from the current folder.

    Values of a wrong type stay: the schema names them.
    """
    if is_bundled:
        return with_paths_changed(raw, _packaged)
    return with_paths_changed(raw, partial(_located, folder), partial(_spec_located, folder))


def with_paths_changed(
    raw: JsonObject, change: Callable[[str], str], change_spec: Callable[[str], str] = str
) -> JsonObject:
    """A spec with its paths of files and folders changed, and those of other specs by `change_spec`."""
    changed = dict(raw)
    if "like" in raw:
        changed["like"] = _each_text(raw["like"], change_spec)
    if "source" in raw:
        changed["source"] = _source(raw["source"], change)
    mix = raw.get("mix")
    if isinstance(mix, dict) and isinstance(mix.get("parts"), dict):
        parts = {name: _part(part, change, change_spec) for name, part in mix["parts"].items()}
        changed["mix"] = {**mix, "parts": parts}
    return changed


def _part(part: Any, change: Callable[[str], str], change_spec: Callable[[str], str]) -> Any:
    if not isinstance(part, dict):
        return part
    changed = dict(part)
    if "as" in part:
        changed["as"] = _each_text(part["as"], change_spec)
    if "source" in part:
        changed["source"] = _source(part["source"], change)
    return changed


def _source(source: Any, change: Callable[[str], str]) -> Any:
    if not isinstance(source, dict):
        return source
    changed = dict(source)
    for key in ("files", "media_dir"):
        if key in source:
            changed[key] = _each_text(source[key], change)
    return changed


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """A text, or texts in lists and mappings, each changed."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [_each_text(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _each_text(item, change) for key, item in value.items()}
    return value


def _located(folder: Path, path: str) -> str:
    """A path of a spec in `folder`, from the current folder. Addresses stay."""
    if ADDRESS in path or not path or folder == Path():
        return path
    return _plain(folder / path)


def _packaged(path: str) -> str:
    """A packaged file as such, unless the current folder has the same one. Other paths are of this folder."""
    packaged = ROOT / path
    if packaged.is_file() and not (Path(path).exists() and packaged.samefile(path)):
        return str(packaged)
    return path


def _spec_located(folder: Path, name: str) -> str:
    """The path of a spec below the folder of the spec that names it; the name of a bundled one as it is."""
    if not name.endswith(YAML):
        return name
    path = _plain(folder / name)
    if not Path(path).exists():
        refuse_path_of_shell(folder, path)
    return path


def _plain(path: Path) -> str:
    """A path without `..` inside, if it is still that of the same file: links may lead elsewhere."""
    plain = Path(os.path.normpath(path))
    if ".." in path.parts and path.exists() and not (plain.exists() and path.samefile(plain)):
        return str(path)
    return str(plain)


def refuse_path_of_shell(folder: Path, path: str) -> None:
    """`RequestError` for a path that a spec in `folder` takes from the current folder, where it is found."""
    if folder == Path() or not Path(path).is_relative_to(folder):
        return
    path_of_shell = Path(path).relative_to(folder)
    if matches(str(path_of_shell)):
        raise RequestError(
            _(
                "{path}: not found; {other} is in the current folder, and paths in a spec "
                "are relative to its own folder: write {right}",
                path=path,
                other=path_of_shell,
                right=path_from(folder, str(path_of_shell)),
            )
        )


def path_from(folder: Path, path: str) -> str:
    """A path from the current folder, as a spec in `folder` names it. Addresses and absolute paths stay."""
    if folder == Path() or ADDRESS in path or Path(path).is_absolute():
        return path
    parent = Path(path).parent.resolve()  # `..` goes up from where a link leads
    return os.path.relpath(parent / Path(path).name, folder.resolve())


def matches(pattern: str) -> list[Path]:
    """The paths that match a pattern such as `data/*.jsonl`, sorted. A path that exists is itself.

    Folders match if no file does. The folders at its beginning that exist are no pattern: their names may
    have brackets.
    """
    if os.path.lexists(pattern):
        return [Path(pattern)]
    if not glob.has_magic(pattern):
        return []
    parts = Path(pattern).parts
    folder = Path()
    depth = 0
    while depth < len(parts) and (folder / parts[depth]).exists():
        folder /= parts[depth]
        depth += 1
    rest = str(Path(*parts[depth:]))
    names = glob.glob(rest, root_dir=folder, recursive=True)  # noqa: PTH207  # Path.glob raises for `**a`
    paths = [own_file(path) for path in sorted(folder / name for name in names)]
    return [path for path in paths if not path.is_dir()] or paths


def no_match(pattern: str) -> str:
    """What to say of a pattern without a match: its folder, or a near one."""
    folder = Path(pattern).parent
    while glob.has_magic(str(folder)) and not folder.exists():
        folder = folder.parent
    hint = _("{folder} has no such file", folder=folder) if folder.exists() else near_name(folder)
    return _("{path}: no file matches this pattern; {hint}", path=pattern, hint=hint)
