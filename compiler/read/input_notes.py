"""What a compile says of its source files: folders, texts and members that it does not read, and splits."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tuneyard.compiler.read import is_no_data
from tuneyard.compiler.read.inputs import Input, readable
from tuneyard.compiler.read.placement import inside
from tuneyard.compiler.read.remote import SourceFile
from tuneyard.compiler.read.saved import ABOUT_SAVED, saved_files
from tuneyard.compiler.read.stream import suffix
from tuneyard.compiler.rows.problem_codes import NOT_READ
from tuneyard.compiler.spec.model import Spec
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.datasets.compiled import MANIFEST
from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.language.message import _, counted, typed

LINES_OF_TEXTS = ProblemCode(
    "W221",
    _("a folder of .txt files, each line of which is a row"),
    _("For a document a row, write `rows: file` into the spec under `source:`."),
)
ADD_FOLDER = _("add it as a further one, or, for a split, write what `tuneyard data init FOLDER` proposes")
ADD_SPLIT = _("without SPLIT= before its path each goes to the split that it is named like")
ADD_TEXTS = _("to learn from it, write it as rows of a .jsonl")
DOCUMENTS = (".txt", ".md", ".pdf", ".docx", ".xls", ".html", ".xml")
"""Kinds of files that hold texts and are not read next to data."""


def texts_by_line(spec: Spec, inputs: Sequence[Input]) -> Iterator[Problem]:
    """Warn of each folder with several .txt files: they may be documents, and their lines become rows."""
    folders: Counter[tuple[Path, str]] = Counter()
    for item in inputs:
        source = spec.of_input(item.input_name).source
        if isinstance(item.path, Path) and suffix(item.path) == ".txt" and not source.steps(item.input_name):
            folders[item.path.parent, item.input_name] += 1
    for (folder, _unused), files in folders.items():
        if files > 1:
            message = _(
                "{files} .txt files: each line that is not blank is a row; no file is kept as a document",
                files=files,
            )
            hint = _(
                "for a document a row, write `rows: file` into the spec under `source:` (docs/compiler.md)"
            )
            yield Problem(LINES_OF_TEXTS, str(folder), message, "", hint)


def not_read(inputs: Sequence[Input]) -> Iterator[Problem]:
    """Warn of folders with data files inside a folder that is read, and of texts next to its data.

    A source is one folder deep. So is a dictionary of saved splits of which the spec reads some.
    """
    files_read = {item.path for item in inputs if isinstance(item.path, Path)}
    folders_read = {file.parent for file in files_read}
    for parent in dict.fromkeys(item.folder for item in inputs if isinstance(item.folder, Path)):
        for folder in sorted(parent.glob("[!.]*/")):
            count = len(readable(file for file in folder.glob("*") if file.name not in ABOUT_SAVED))
            if count and folder not in folders_read and not (folder / MANIFEST).is_file():
                message = _(
                    "{count} not read: a source is one folder",
                    count=counted(count, "data file", "data files"),
                )
                yield Problem(NOT_READ, str(folder), message, "", ADD_FOLDER)
        texts = {file for file in parent.glob("*") if suffix(file) in DOCUMENTS and not is_no_data(file.name)}
        other_splits = []
        if parent.is_dir() and not saved_files(parent):
            other_splits = [file for file in readable(sorted(parent.glob("*"))) if file not in files_read]
        if other_splits:
            first, *_unused = other_splits
            message = _(
                "{files} of other splits not read, first {first}",
                files=counted(len(other_splits), "data file", "data files"),
                first=first.name,
            )
            yield Problem(NOT_READ, str(parent), message, "", ADD_SPLIT)
        for kind, count in sorted(Counter(map(suffix, texts - files_read)).items()):
            message = _(
                "{count} not read next to the data", count=counted(count, f"{kind} file", f"{kind} files")
            )
            yield Problem(NOT_READ, str(parent), message, "", ADD_TEXTS)


def members_not_read(inputs: Sequence[Input]) -> Iterator[Problem]:
    """Warn of the members of an archive, and the sheets of a workbook, whose splits nothing reads."""
    names_read: dict[SourceFile, set[str]] = {}
    for item in inputs:
        if item.names:
            names_read.setdefault(item.path, set()).update(item.names)
    for item in inputs:
        if item.path not in names_read:
            continue
        other_splits = [name for name in inside(item.path) if name not in names_read[item.path]]
        del names_read[item.path]
        if other_splits:
            message = _("{names}: named like other splits, not read", names=", ".join(other_splits))
            yield Problem(NOT_READ, item.display_path, message, "", ADD_SPLIT)


def notes_on_splits(spec: Spec, inputs: Sequence[Input]) -> list[str]:
    """What the names of files say about their splits: the first file of each note, and how many it is of.

    If a spec for files of any origin gets no rows to train on, that is a note, too.
    """
    files: dict[str, list[str]] = {}
    for item in inputs:
        if item.note:
            files.setdefault(item.note, []).append(item.location_of_rows)
    notes: list[str] = []
    for note, paths in files.items():
        line = _("{path}: {note}", path=paths[0], note=note)
        if len(paths) > 1:
            line = _("{note} (and {number} more like it)", note=line, number=len(paths) - 1)
        notes.append(line)
    splits_with_rows = {item.input_name for item in inputs}
    if spec.split and spec.split.is_given and TRAIN_SPLIT in splits_with_rows:
        held_out = next(item for item in inputs if item.input_name != TRAIN_SPLIT)
        notes.append(
            _(
                "{path}: held-out rows, so that {name} draws none from those to train on",
                path=held_out.display_path,
                name=spec.name,
            )
        )
    if spec.source.held_out and TRAIN_SPLIT not in splits_with_rows:
        notes.append(_without_training_rows(spec, inputs))
    return notes


def _without_training_rows(spec: Spec, inputs: Sequence[Input]) -> str:
    """The note that all rows are held out, with the command that also gives rows to train on."""
    words = ["tuneyard", "data", "compile", spec.name, "--source", f"{TRAIN_SPLIT}=TRAINING_ROWS"]
    for item in {item.display_path: item for item in inputs}.values():
        words += ["--source", f"{item.input_name}={item.display_path}"]
    path = inputs[0].display_path
    return _(
        "{path}: no source has rows of {split}; to train on others and evaluate on these: {command}; "
        "to train on these give --source {split}={path}",
        path=path,
        split=TRAIN_SPLIT,
        command=typed(words),
    )
