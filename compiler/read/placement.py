"""Which split the rows of a file go to if the user names only the file: the one that it is named like.

The innermost name decides: that of a sheet or of an archive's member, then that of the file, then that of the
folder around it.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, NoReturn

from tuneyard.compiler.read.remote import RemoteFile, SourceFile
from tuneyard.compiler.read.sheets import sheet_names
from tuneyard.compiler.read.split_names import (
    EVAL,
    SPLIT_WORDS,
    TEST,
    split_of_folder,
    splits_named_in,
    stem_of_data,
)
from tuneyard.compiler.read.stream import suffix
from tuneyard.compiler.read.zips import member_paths
from tuneyard.compiler.rows.problems import UnreadableFileError
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.errors import RequestError
from tuneyard.core.language.message import _, joined
from tuneyard.core.text.quoting import shell

NAMED_LIKE = "named like"
"""What notes on names contain, in English."""
SHOWN_MEMBERS = 3


class Placement(NamedTuple):
    """A split, the sheets or members of a file that go there (() for all), and what to tell the user."""

    split: str
    names: tuple[str, ...] = ()
    note: str = ""


class _Name(NamedTuple):
    """A name that may name a split."""

    text: str
    is_folder: bool = False

    def splits(self) -> tuple[str, ...]:
        """The usual splits that it names: train, eval, test."""
        if self.is_folder:
            return tuple(filter(None, [split_of_folder(self.text)]))
        return splits_named_in(self.text)


def names_of_splits(spec: Spec, only_split: str = "") -> dict[str, str]:
    """The split, or part, of that name, otherwise the first that accepts it, by the name.

    `only_split`: the only split whose names are needed.
    """
    split_by_name = {split: split for split in spec.input_names}
    for split, names in spec.source.splits.items():
        for name in names:
            split_by_name.setdefault(name, split)
    for split in spec.source.held_out:
        for name in SPLIT_WORDS.get(_usual_split(split), ()):
            split_by_name.setdefault(name, split)
    return {name: split for name, split in split_by_name.items() if only_split in ("", split)}


def with_given_splits(spec: Spec) -> Spec:
    """A spec that draws rows to hold out, for a source that holds rows out itself: its files decide.

    The splits are those of the draw, and the usual ones that none of these stands for. A mixture
    always draws: its files have its parts as names, which are no splits.
    """
    if spec.split is None or spec.mix:
        return spec
    held_out = list(spec.split.shares)
    usual_splits = {_usual_split(split) for split in held_out}
    held_out += [split for split in (EVAL, TEST) if split not in usual_splits]
    split = spec.split._replace(shares=dict.fromkeys(held_out, 0.0), is_given=True)
    return spec._replace(split=split, source=spec.source._replace(held_out=tuple(held_out)))


def placements(spec: Spec, file: SourceFile, *, has_folder: bool = True) -> list[Placement]:
    """The splits of a file's rows, by names. `RequestError` if a name names no split of the spec, or several.

    Without `has_folder` the folder around the file has no say.
    """
    outer_names = _names_of_file(file, has_folder=has_folder)
    if suffix(file) == ".zip":
        return _placed_members(spec, file, outer_names)
    if suffix(file) == ".xlsx":
        return _placed_sheets(spec, file, outer_names)
    return [_placed(spec, file, str(file), outer_names)]


def placements_in_split(
    spec: Spec, split: str, file: SourceFile, *, is_named: bool = False
) -> list[Placement]:
    """The rows of a file that the user or the spec gives to a split: of an archive or a workbook, its own.

    Members and sheets without a split's name go with it. `RequestError` if all are of other splits. A file
    named like another split is obeyed, with a note, unless `is_named`: what is in it says that it is right.
    """
    notes = [Placement(split, (), "" if is_named else _note_on_file(spec, split, file))]
    names_inside: dict[str, list[_Name]] = {}
    if suffix(file) == ".zip":
        names_inside = {path: _names_of_member(path) for path in inside(file)}
    elif suffix(file) == ".xlsx":
        names_inside = {sheet: [_Name(sheet)] for sheet in inside(file)}
    is_of_split = {inside: _is_of_split(spec, split, names) for inside, names in names_inside.items()}
    if set(is_of_split.values()) <= {None}:
        return notes
    named = tuple(inside for inside, is_its in is_of_split.items() if is_its)
    unnamed = tuple(inside for inside, is_its in is_of_split.items() if is_its is None)
    if not named and not unnamed:
        refuse_other_splits(split, str(file), list(is_of_split))
    if suffix(file) == ".zip" or not named:
        return [Placement(split, tuple(inside for inside in is_of_split if is_of_split[inside] is not False))]
    first, *others = named  # the reader reads one sheet of a placement, and reports the others
    return [Placement(split, (first, *unnamed)), *(Placement(split, (sheet,)) for sheet in others)]


def members_of_split(spec: Spec, split: str, members: Sequence[tuple[str, bool]]) -> list[bool | None]:
    """For each file or folder, its name and if it is a folder: does it name this split? None for no split."""
    return [
        _is_of_split(spec, split, [_Name(name if is_folder else stem_of_data(name), is_folder)])
        for name, is_folder in members
    ]


def refuse_other_splits(split: str, container: str, members: Sequence[str]) -> NoReturn:
    """`RequestError` for a folder, an archive or a workbook that has nothing of the split given."""
    several = ", ".join(members[:SHOWN_MEMBERS])
    if len(members) > SHOWN_MEMBERS:
        several = _("{names} and {number} more", names=several, number=len(members) - SHOWN_MEMBERS)
    raise RequestError(
        _(
            "{container}: its parts are named like other splits than {split}: {names}; "
            "to read one as {split} give its file, --source {split}=FILE; to read them "
            "by their names give --source {container}",
            container=container,
            split=split,
            names=several,
        )
    )


def _is_of_split(spec: Spec, split: str, names: Sequence[_Name]) -> bool | None:
    """True if the innermost name that names a split names this one, None if no name names a split."""
    usual = TRAIN_SPLIT if spec.mix else _usual_split(split)
    for name in names:
        accepted = "" if spec.mix else _accepted_name(spec, name)
        if accepted:
            return names_of_splits(spec)[accepted] == split
        splits = name.splits()
        if splits and usual:
            has_such_split = any(_usual_split(part) in splits for part in spec.input_names)
            return usual in splits or (usual == EVAL and TRAIN_SPLIT not in splits and not has_such_split)
    return None


def _note_on_file(spec: Spec, split: str, file: SourceFile) -> str:
    """Held-out rows in train, and training rows in another split, are named. "" if the names agree."""
    names = _names_of_file(file, has_folder=True)
    splits = next(filter(None, (name.splits() for name in names)), ())
    return _note_on_splits(TRAIN_SPLIT if spec.mix else split, splits)


def note_on_name(split: str, name: str) -> str:
    """The note of `placements_in_split` on the split of a hub that has this name."""
    return _note_on_splits(split, splits_named_in(name))


def _note_on_splits(split: str, named: Sequence[str]) -> str:
    if any((other == TRAIN_SPLIT) != (split == TRAIN_SPLIT) for other in named):
        return _(
            "named like {names} and read as {split}, as --source or the spec says",
            names=joined(named, _(" and ")),
            split=split,
        )
    return ""


def _names_of_file(file: SourceFile, *, has_folder: bool) -> list[_Name]:
    names = [_Name(stem_of_data(file.name))]
    if has_folder:
        folder = PurePosixPath(str(file).partition("://")[2] or str(file)).parent
        is_store = isinstance(file, RemoteFile) and len(folder.parts) < 2  # s3://test/a.jsonl is in a bucket
        if not is_store:
            names.append(_Name(folder.name, is_folder=True))
    return names


def _names_of_member(path: str) -> list[_Name]:
    member = PurePosixPath(path)
    return [_Name(stem_of_data(member.name)), _Name(member.parent.name, is_folder=True)]


def inside(file: SourceFile) -> list[str]:
    """The members of an archive, or the sheets of a workbook. None of a damaged one: its reader says so."""
    try:
        return member_paths(file) if suffix(file) == ".zip" else sheet_names(file)
    except UnreadableFileError:
        return []


def _placed_members(spec: Spec, file: SourceFile, outer_names: Sequence[_Name]) -> list[Placement]:
    """One placement for each split of an archive."""
    members: dict[str, list[str]] = {}
    notes: dict[str, str] = {}
    for path in inside(file):
        placed = _placed(spec, file, f"{file}/{path}", [*_names_of_member(path), *outer_names])
        members.setdefault(placed.split, []).append(path)
        notes.setdefault(placed.split, placed.note)
    if not members:
        return [_placed(spec, file, str(file), outer_names)]
    if len(members) == 1:
        return [Placement(split, (), note) for split, note in notes.items()]
    return [Placement(split, tuple(paths), notes[split]) for split, paths in members.items()]


def _placed_sheets(spec: Spec, file: SourceFile, outer_names: Sequence[_Name]) -> list[Placement]:
    """One placement for each sheet that is named like a split, and one for the others.

    The others are read if no sheet is named like train. If one is, they are notes, which the reader reports.
    """
    sheets = inside(file)
    named = [sheet for sheet in sheets if _Name(sheet).splits()]
    if not any(split != TRAIN_SPLIT for sheet in named for split in _Name(sheet).splits()):
        return [_placed(spec, file, str(file), outer_names)]
    placed = []
    for sheet in named:
        names_of_sheet = [_Name(sheet), *outer_names]
        placement = _placed(spec, file, f"{file}, sheet {sheet}", names_of_sheet)
        placed.append(placement._replace(names=(sheet,)))
    others = tuple(sheet for sheet in sheets if sheet not in named)
    for number, placement in enumerate(placed):
        if others and placement.split == TRAIN_SPLIT:
            placed[number] = placement._replace(names=placement.names + others)
            others = ()
    if others:
        placed.append(_placed(spec, file, str(file), outer_names)._replace(names=others))
    return placed


def _placed(spec: Spec, file: SourceFile, display_path: str, names: Sequence[_Name]) -> Placement:
    """The placement of rows by their names, the innermost first."""
    for name in names:
        accepted = _accepted_name(spec, name)
        if accepted:
            of_accepted = splits_named_in(accepted)
            rest = re.sub(_as_word(accepted), " ", name.text, flags=re.IGNORECASE)
            if of_accepted and not name.is_folder:
                _refuse_several(file, display_path, of_accepted, splits_named_in(rest))
            return Placement(names_of_splits(spec)[accepted])
        splits = name.splits()
        if splits:
            _refuse_several(file, display_path, splits[:1], splits)
            return _placed_as(spec, file, display_path, splits[0])
    if spec.source.splits:
        raise RequestError(
            _(
                "{path}: its name contains no split of {name} (splits: {splits}); give --source SPLIT={file}",
                path=display_path,
                name=spec.name,
                splits=", ".join(spec.splits),
                file=file,
            )
        )
    return Placement(TRAIN_SPLIT)


def _usual_split(name: str) -> str:
    """The usual split that the name of a spec's split stands for, "" if none: `dev` is eval."""
    return next(iter(splits_named_in(name)), "")


def _as_word(name: str) -> str:
    """A regular expression for a name as a whole word, in lower case."""
    return rf"(?<![^\W\d_]){re.escape(name.lower())}(?![^\W\d_])"


def _accepted_name(spec: Spec, name: _Name) -> str:
    """The longest name of a split of the spec in a name, "" if there is none. A folder is called just so."""
    if spec.source.held_out:  # files of any origin, whose usual names are noted
        return ""
    for accepted in sorted(names_of_splits(spec), key=len, reverse=True):
        if name.is_folder and name.text.lower() == accepted.lower():
            return accepted
        if not name.is_folder and re.search(_as_word(accepted), name.text.lower()):
            return accepted
    return ""


def _refuse_several(
    file: SourceFile, display_path: str, splits: Sequence[str], others: Sequence[str]
) -> None:
    """`RequestError` for a name such as train_test.jsonl, of which only the user knows what it is."""
    several = list(dict.fromkeys([*splits, *others]))
    if len(several) > len(splits):
        raise RequestError(
            _(
                "{path}: its name names the splits {splits}, expected one; give --source SPLIT={file}",
                path=display_path,
                splits=", ".join(several),
                file=file,
            )
        )


def _placed_as(spec: Spec, file: SourceFile, display_path: str, usual: str) -> Placement:
    """The placement of rows that are named like a usual split: there, or held-out rows in eval."""
    if usual == TRAIN_SPLIT and not spec.source.splits:
        return Placement(TRAIN_SPLIT)
    for split in (usual, EVAL):
        for part in spec.input_names:
            if split in (part, _usual_split(part)) and (split == usual or usual != TRAIN_SPLIT):
                note = _("named like {name}, read as {split}", name=usual, split=part)
                return Placement(part, (), note)
    first = spec.input_names[0]
    folder = shlex.quote(str(file).rpartition("/")[0] or ".")
    raise RequestError(
        _(
            "{path}: named like {split_in_name}, and {name} has no such split (splits: {splits}); "
            "to read it as {split} give --source {split}={file}; for a dataset with this "
            "split `tuneyard data init {folder}` proposes a spec",
            path=display_path,
            split_in_name=usual,
            name=spec.name,
            splits=", ".join(spec.input_names),
            split=first,
            file=file,
            folder=shell(folder),
        )
    )
