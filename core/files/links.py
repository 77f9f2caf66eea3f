"""Links in a folder that came by mail: what leaves the folder lies in it, and no write leads out of it.

`LICENSE -> ~/.ssh/id_rsa` would be uploaded with an adapter, and `report.html -> ~/.bashrc` overwritten.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files.bounded_reading import refuse_pipe
from tuneyard.core.language.message import _, relative
from tuneyard.core.text.quoting import shell


def own_file(path: Path) -> Path:
    """The path itself, of a file in a folder whose content is copied, uploaded or compiled.

    `ContentError` for a link out of the folder, except into the hub's cache, and for what is no regular file:
    reading a named pipe never ends. A link that leads nowhere is an error when it is opened.
    """
    target = Path(os.path.realpath(path))
    if not target.exists():
        return path
    if path.is_symlink() and not _is_inside(target, path.parent):
        raise ContentError(
            _(
                "{path}: a link to {target}, expected a file of this folder; if it belongs there, "
                "copy it: {command}",
                path=path,
                target=target,
                command=f"cp --remove-destination {shell(relative(target))} {shell(relative(path))}",
            )
        )
    refuse_pipe(path, _("; remove it from the folder"))
    return path


def check_own_files(folder: Path, names: Iterable[str]) -> None:
    """`ContentError` for the first of these files that is not the folder's own. Missing ones do not count."""
    for name in names:
        own_file(folder / name)


def refuse_written_link(path: Path) -> None:
    """`RequestError` if a file to write is a link: the user named its folder, and not what it leads to.

    Pipes and devices are refused, too.
    """
    if path.is_symlink():
        raise RequestError(
            _(
                "{path}: a link to {target}, which would be overwritten; remove the link, or name "
                "another folder",
                path=path,
                target=Path(os.path.realpath(path)),
            )
        )
    refuse_special_file(path)


def refuse_special_file(path: Path) -> None:
    """`RequestError` for a pipe, socket or device: writing may wait for ever, /dev/null is everybody's."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise RequestError(
            _("{path}: found a pipe or a device, expected a file to write; name another one", path=path)
        )


def refuse_links_in(folder: Path) -> None:
    """`RequestError` for a link in a folder into which another program writes."""
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            refuse_written_link(path)


def _is_inside(target: Path, folder: Path) -> bool:
    """True for a path below a folder, or among the blobs of the hub's cache, to which its snapshots link."""
    real_folder = Path(os.path.realpath(folder))
    if target.is_relative_to(real_folder):
        return True
    if real_folder.parent.name == "snapshots" and target.parent == real_folder.parent.parent / "blobs":
        return True
    from huggingface_hub import constants

    cache = Path(os.path.realpath(constants.HF_HUB_CACHE))
    return target.is_relative_to(cache) and target.parent.name == "blobs"
