"""Reads the statistics of a file: its encoding and dialect, and the types and the values of its columns."""

import contextlib
import hashlib
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from tuneyard.compiler.chat.chats import MESSAGE
from tuneyard.compiler.chat.forms import AI_STUDIO, ai_studio
from tuneyard.compiler.chat.message_forms import SPEAKER, SPEAKERS, is_transcript
from tuneyard.compiler.engine.row_loop import SourceRows
from tuneyard.compiler.init.column_statistics import (
    CHINESE,
    FEWEST_ROWS,
    MOST_VALUES,
    FileStatistics,
    Leaf,
    paths_above,
)
from tuneyard.compiler.init.dialects import dialects, encoding_of, head_of
from tuneyard.compiler.init.labels import ID, VALUE_TYPES
from tuneyard.compiler.init.proposal import PROMPTS
from tuneyard.compiler.read import TEXTS, find_reader, known_suffixes
from tuneyard.compiler.read.inputs import data_files, readable
from tuneyard.compiler.read.measure import size_of
from tuneyard.compiler.read.remote import RemoteFile, SourceFile, SourcePath
from tuneyard.compiler.read.saved import saved_files
from tuneyard.compiler.read.scan import (
    LOOKED_AT,
    Steps,
    are_messages,
    are_rows,
    is_one_row,
    layout_of,
    members_of,
)
from tuneyard.compiler.read.split_names import SPLIT_WORDS, splits_named_in, stem_of_data
from tuneyard.compiler.read.stream import Member, Readable, opened, suffix
from tuneyard.compiler.read.zips import members
from tuneyard.compiler.rows import Fields, are_objects
from tuneyard.compiler.rows.problems import UnreadableFileError
from tuneyard.compiler.spec.column_types import Column, column_types
from tuneyard.compiler.spec.file import BySplit, Source
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.datasets.column_meanings import USUAL_NAMES, role_of_name
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import are_texts
from tuneyard.core.files.bounded_reading import LARGEST_BATCH, LARGEST_RECORD
from tuneyard.core.language.message import _, marked

SAMPLE = 20_000
MOST_COLUMNS = 200_000
COMPARED_FILES = 20
MOST_LISTS = 20
FEWEST_ANSWERS = 5
_QUESTION_MARK = re.compile("[?？]")
SPLIT_NAMES = {word for words in SPLIT_WORDS.values() for word in words}
KEPT = 1000
LONGEST_VALUE = 10_000  # characters of a value that is kept to be compared with others
ONE_LABEL = (".value.choices", "label", "labels", "accept", ".responses")
"""Ends of paths to the labels of Label Studio, doccano, Prodigy and Argilla: a list, often of one text."""
FIRST_COUNTS = {"annotations": "result", "answers": "answer_start"}
"""Lists whose first object counts, by a key in it: Label Studio's first annotator, SQuAD's first answer."""
OF_ONE_ROW = ({"question": "text", "answer": "answer"}, {"turns": "turns"})
"""The columns, with their types, by which a document is one row, whatever lists of objects are in it."""
TYPE_NAMES = {
    str: marked("text"),
    bool: marked("truth value"),
    int: marked("number"),
    float: marked("fraction"),
}


def read_statistics(path: SourcePath, table: str) -> Iterator[FileStatistics]:
    """Read the first 20,000 rows, for each list that may hold them, the outermost first.

    It reads one data file of a folder or an archive, the file of train if there is one. Of texts that are
    documents it reads each. `table` is that of a database.
    `RequestError` or `ContentError` if no rows can be read.
    """
    folders = _folders(path)
    files = [file for folder in folders for file in data_files(folder)]
    paths_by_split = _files_by_split(files)
    names_of_folders = {str(folder): str(folder).removeprefix(str(path)) for folder in folders}
    if not all(splits_named_in(stem_of_data(file.name)) for file in files) or not paths_by_split:
        _refuse_other_columns(path, files)
    folder_names = {*"/".join(names_of_folders.values()).split("/")} - {""}
    placed: dict[str, Any] = {}  # what the source of a spec says of the files
    by_split = paths_by_split or _paths_by_split(names_of_folders)
    if by_split:
        placed = {"files": by_split, "splits": {name: (name,) for name in by_split}}
        folder_names = {name for name in folder_names if not splits_named_in(name)}
    elif folders != [path]:
        placed = {"files": {TRAIN_SPLIT: tuple(map(str, folders))}}
    try:
        with contextlib.ExitStack() as stack:
            files_to_read = _files_to_read(files, paths_by_split, stack)
            first, *others = files_to_read
            encoding = "utf-8"
            if find_reader(suffix(first), str(first)).text:
                encoding = encoding_of(first)
            are_texts = bool(others) and ".txt" in map(suffix, files_to_read)
            for sources in _sources_to_try(first, encoding, table, are_texts):
                statistics = _best_reading(path, first, sources)
                _read_others(statistics, others)
                if statistics.forms.names() and not statistics.source.form:
                    statistics = _best_reading(path, first, [statistics.forms.source(statistics.source)])
                    _read_others(statistics, others)
                if not statistics.rows:
                    raise _without_rows(statistics)
                statistics.source = statistics.source._replace(columns=(), **placed)
                statistics.folder_names = sorted(folder_names)
                yield statistics
    except UnreadableFileError as error:
        raise ContentError(_("{path}: {error}; {hint}", path=path, error=error, hint=error.hint)) from error


def _files_to_read(
    files: Sequence[SourceFile], paths_by_split: BySplit, stack: contextlib.ExitStack
) -> Sequence[Readable]:
    """The first file of train, otherwise all files; of an archive those in it, which `stack` keeps open."""
    if paths_by_split:
        first_path, *_unused = paths_by_split.get("train") or map(str, files)
        files = [file for file in files if str(file) == first_path]
    first = files[0]
    if not isinstance(first, Path) or suffix(first) != ".zip":
        return files
    inner_files = stack.enter_context(members(first))
    if not inner_files:
        raise ContentError(
            _("{path}: no data file in the archive (known: {names})", path=first, names=known_suffixes())
        )
    _refuse_splits_inside(first, inner_files)
    return inner_files


def _read_others(statistics: FileStatistics, files: Sequence[Readable]) -> None:
    """Read further files into the statistics of a first one with few rows."""
    if statistics.rows >= FEWEST_ROWS:
        return
    for file in files:
        if not isinstance(file, RemoteFile) and statistics.rows < SAMPLE:
            _read_rows(statistics, file)


def _without_rows(statistics: FileStatistics) -> ContentError:
    """The error for a file without a row that can be read: its first problem, if it has one."""
    errors = statistics.problems.errors
    if not errors:
        return ContentError(
            _(
                "{path}: no rows; name a file of rows (a table, JSON, JSON Lines, Parquet)",
                path=statistics.path,
            )
        )
    return ContentError(errors[0].line())


def _folders(path: SourcePath) -> Sequence[SourcePath]:
    """A source. If it has no data itself, or nothing but documents: each folder in it that has some, too.

    If `save_to_disk` wrote it, with splits of usual names: the folder of each split. Of Slack's export the
    folder of each channel.
    """
    if not isinstance(path, Path):
        return [path]
    if (path / "channels.json").is_file():
        channels = sorted({file.parent for file in path.glob("[!.]*/[!.]*.json")})
        return channels or [path]
    saved = [path / name for name in saved_files(path)]
    if _paths_by_split({str(folder): folder.name for folder in saved}):
        return saved
    files = readable(each for each in path.rglob("*") if "/." not in f"/{each.relative_to(path)}")
    folders = {file.parent for file in files}
    if folders and (path not in folders or all(suffix(file) in TEXTS for file in files)):
        return sorted(folders)
    return [path]


def _files_by_split(files: Sequence[SourceFile | Member]) -> BySplit:
    """The paths of files by the splits that their names without the suffixes have.

    Next to test.jsonl a file without a split is one of train. Documents are not: they have topics as names.
    """
    names = {str(file): stem_of_data(file.name) for file in files}
    default = "" if any(suffix(file) in TEXTS for file in files) else TRAIN_SPLIT
    return _paths_by_split(names, default)


def _paths_by_split(names: Mapping[str, str], default: str = "") -> BySplit:
    """Paths by split, {} if their names name less than two splits, or a path has none. `default` is one.

    `RequestError` if a name names several, next to paths that name others.
    """
    paths: dict[str, list[str]] = {}
    several = ""
    for path, name in names.items():
        splits = splits_named_in(name)
        if len(splits) > 1:
            several = path
        split = splits[0] if splits else default
        paths.setdefault(split, []).append(path)
    if len(paths) < 2 or "" in paths:
        return {}
    if several:
        splits_in_name = ", ".join(splits_named_in(names[several]))
        raise RequestError(
            _(
                "{path}: its name names the splits {splits}, expected one: rename it, or "
                "give each file by itself",
                path=several,
                splits=splits_in_name,
            )
        )
    return {split: tuple(paths_of_split) for split, paths_of_split in paths.items()}


def _refuse_splits_inside(archive: Path, files: Sequence[Member]) -> None:
    """`ContentError` if the files of an archive are named as splits: a spec reads an archive as one."""
    folders = {str(file): Path(str(file)).parent.name for file in files}
    splits = _files_by_split(files) or _paths_by_split(folders)
    if splits:
        raise ContentError(
            _(
                "{archive}: its files are the splits {splits}, and a spec reads an archive "
                "as one: unpack it, and name the folder that has these files; a bundled spec "
                "takes them by their names: tuneyard data compile qa --source {source}",
                archive=archive,
                splits=", ".join(splits),
                source=shlex.quote(str(archive)),
            )
        )


def _best_reading(path: SourcePath, file: Readable, sources: Iterable[Source]) -> FileStatistics:
    """Read a file by each source until one has no problem. The source with the fewest problems wins."""
    readings = []
    for source in sources:
        statistics = FileStatistics(path, source)
        readings.append(statistics)
        _read_rows(statistics, file)
        if not statistics.problems.errors:
            break
    return min(readings, key=lambda reading: reading.problems.count("E"))


def _read_rows(statistics: FileStatistics, file: Readable) -> None:
    """Add rows of a file to its statistics, at most `SAMPLE` of each split."""
    lists_of_objects: set[str] = set()
    kept_size = 0
    for split in statistics.source.splits or (TRAIN_SPLIT,):
        source_rows = SourceRows(file, str(file), statistics.source, split)
        for rows in source_rows.read(statistics.problems):
            statistics.rows += len(rows.lines)
            for number in range(len(rows.lines)):
                row = rows.row(number)
                try:
                    _note(statistics.leaves, lists_of_objects, "", row)
                except RecursionError as error:
                    raise ContentError(
                        _("{place}: nested too deep to be read", place=rows.location(number))
                    ) from error
                if len(statistics.leaves) > MOST_COLUMNS:
                    raise ContentError(
                        _(
                            "{place}: found more than {most_columns:,} columns up to this row, expected "
                            "rows that share their columns: their names may be data, as ids are; write a "
                            "list of rows with these as a column",
                            place=rows.location(number),
                            most_columns=MOST_COLUMNS,
                        )
                    )
                statistics.forms.see(row)
                if len(statistics.first) < KEPT and kept_size < LARGEST_BATCH:
                    statistics.first.append(row)
                    kept_size += size_of(row)
            if statistics.rows >= SAMPLE:
                break
    _note_names(statistics.leaves, file)
    for path in list(statistics.leaves):  # the first of several objects or labels is not all of them
        if not lists_of_objects.isdisjoint(paths_above(path)):
            del statistics.leaves[path]


def _note_names(leaves: dict[str, Leaf], file: Readable) -> None:
    """Note the names of classes, whose rows have numbers, as Hugging Face keeps them in a Parquet file."""
    if suffix(file) != ".parquet" or not isinstance(file, Path):
        return
    import pyarrow.parquet

    with contextlib.suppress(ValueError, LookupError, AttributeError, TypeError):
        metadata = pyarrow.parquet.read_schema(file).metadata
        for name, feature in orjson.loads(metadata[b"huggingface"])["info"]["features"].items():
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel":
                leaves[name].names = dict(enumerate(feature["names"]))


def _refuse_other_columns(path: SourcePath, files: Sequence[SourceFile]) -> None:
    """`ContentError` if two of the first files of a folder share less than half of their columns.

    Ids do not count: the files of an export often share nothing else.
    """
    columns = {}
    for file in files[:COMPARED_FILES] if len(files) > 1 else ():
        rows = SourceRows(file, str(file), Source()).first()
        if rows is not None:
            columns[str(file)] = {name for name in rows.names() if not ID.search(name.lower())}
    first = next(iter(columns), "")
    for other, names in columns.items():
        if 2 * len(columns[first] & names) < min(len(columns[first]), len(names)):
            raise ContentError(
                _(
                    "{path}: its files hold different data: {first} has the columns {columns}, "
                    "and {second} has {others}; write them alike, or give one file: tuneyard "
                    "data init {file}",
                    path=path,
                    first=first,
                    columns=", ".join(sorted(columns[first])),
                    second=other,
                    others=", ".join(sorted(names)),
                    file=shlex.quote(first),
                )
            )


def _are_answers_by_question(members: Fields) -> bool:
    """True for {question: answer, …}: an object of texts or answers under questions or many unusual names.

    Also for questions under topics, of which one has a question mark. Rows under ids share their keys.
    """
    values = [value for value in members.values() if value is not None]  # of a text that is cut off
    if are_objects(values) and not are_rows(members) and _QUESTION_MARK.search(str(list(map(list, values)))):
        return all(map(_are_answers_by_question, values))
    are_sentences = all(" " in name or CHINESE.search(name) for name in members)
    is_short = len(members) < FEWEST_ANSWERS and not are_sentences
    if not members or is_short or any(map(role_of_name, members)):
        return False
    if all(map(_has_only_an_answer, values)) and are_sentences and not _are_numbered(members):
        return True
    return are_texts(values)


def _are_numbered(names: Iterable[str]) -> bool:
    """True for `case 1`, `case 2`: names that differ by their numbers alone and ask nothing."""
    words = {re.sub(r"\d+", "", name) for name in names}
    return len(words) == 1 and not words.pop().strip().endswith(("?", "？"))


def _has_only_an_answer(fields: object) -> bool:
    """True for a list of answers, or one next to which nothing may be the question: its key is it, no id."""
    if not isinstance(fields, dict):
        return _type_of(fields) in ("text", "texts")
    roles = set(map(role_of_name, fields))
    return "answer" in roles and roles.isdisjoint(PROMPTS)


def _sources_to_try(
    path: Readable, encoding: str, table: str, are_documents: bool
) -> Iterator[Iterable[Source]]:
    """Yield, for each list of a file that may hold its rows, the ways in which the file may be written."""
    if suffix(path) in TEXTS:
        lines = [
            line for line in head_of(path, encoding).decode(errors="replace").splitlines() if line.strip()
        ]
        speakers = {SPEAKERS[match[1].lower()] for match in map(SPEAKER.match, lines) if match is not None}
        rows = {}
        has_both = {"user", "assistant"} <= speakers
        if has_both and any(map(SPEAKER.match, lines[:3])):  # the lines before it are titles
            rows = {"": ("turns",)}
        elif 2 * sum(map(bool, map(MESSAGE.match, lines))) > len(lines):
            rows = {"": ("chat",)}
        elif are_documents:
            rows = {"": ("file",)}
        yield [Source(encoding=encoding, rows=rows)]
        return
    if table:
        yield [Source(table=table)]
        return
    if suffix(path) in (".csv", ".tsv"):
        yield dialects(path, encoding)
        return
    head = head_of(path, encoding) if suffix(path) == ".json" else b""
    text = head.decode(errors="replace").strip()
    members, _end, _is_whole = members_of(text if text.startswith("{") else f'{{"rows": {text}')
    if _are_answers_by_question(members):
        yield [Source(encoding=encoding, answers_by_question=True)]
        return
    if ai_studio.is_document(_whole(path, encoding, head) or members):
        yield [Source(encoding=encoding, form=(AI_STUDIO,))]
        return
    if any(map(are_objects, members.values())):
        for type_by_name in OF_ONE_ROW:
            columns = tuple(
                Column(name, USUAL_NAMES[name], column_types()[type_name])
                for name, type_name in type_by_name.items()
            )
            if is_one_row(columns, members):
                yield [Source(encoding=encoding, columns=columns)]
                return
    lists = layout_of(head, len(head) < LOOKED_AT).lists
    parts = lists or members
    if len(parts) > 1 and SPLIT_NAMES.issuperset(map(str.lower, parts)):
        keys = {name: (name,) for name in parts}
        yield [Source(splits=keys, rows=keys, encoding=encoding)]
    elif lists:
        longest_first = sorted(lists.items(), key=lambda each: -len(each[1]))
        for name, items in longest_first[:MOST_LISTS]:
            for steps in _lists_within(items, (name,)):
                yield [Source(encoding=encoding, rows={"": steps})]
        if len(lists) > MOST_LISTS:  # each is a reading of the whole file
            raise ContentError(
                _(
                    "{path}: found {lists:,} lists of objects, and no fitting rows in the "
                    "{most_lists} longest, expected one list: write the rows as one",
                    path=path,
                    lists=len(lists),
                    most_lists=MOST_LISTS,
                )
            )
    else:
        yield [Source(encoding=encoding)]
        outermost = members.get("rows")
        if are_objects(outermost):  # CMRC: a list of questions in each text of a list
            for steps in islice(_lists_within(outermost, ()), 1, None):
                yield [Source(encoding=encoding, rows={"": steps})]


def _whole(path: Readable, encoding: str, head: bytes) -> Fields:
    """An object that goes on after the first bytes of a file. {} for other values, and for a larger one."""
    if len(head) < LOOKED_AT or head.lstrip()[:1] != b"{":
        return {}
    with opened(path, encoding) as stream, contextlib.suppress(orjson.JSONDecodeError):
        value = orjson.loads(stream.read(LARGEST_RECORD))
        if isinstance(value, dict):
            return value
    return {}


def _lists_within(items: list[Fields], steps: Steps) -> Iterator[Steps]:
    """Yield the keys to a list of objects, then the keys to the only list in its objects, and so on."""
    yield steps
    inner_lists: dict[str, list[Fields]] = {}
    for item in items:
        for name, value in item.items():
            is_fragment = name in (*FIRST_COUNTS, *USUAL_NAMES["replies"], *USUAL_NAMES["label"])
            if are_objects(value) and not are_messages(value) and not is_fragment:
                inner_lists.setdefault(name, []).extend(value)
    if len(inner_lists) == 1:
        for name, inner_items in inner_lists.items():
            yield from _lists_within(inner_items, (*steps, name))


def _note(leaves: dict[str, Leaf], lists_of_objects: set[str], path: str, value: object) -> None:
    """Walk into a row and note every leaf; lists of texts, of messages, of several objects are leaves."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _note(leaves, lists_of_objects, f"{path}.{key}" if path else str(key), inner)
        return
    value_type = _type_of(value)
    has_labels = value_type == "texts" and path.endswith(ONE_LABEL)
    is_walked_into = value_type == "one object" or has_labels
    if isinstance(value, list) and len(value) == 1 and is_walked_into:
        _note(leaves, lists_of_objects, f"{path}.0", value[0])
        return
    if not path:
        return
    if are_objects(value) and FIRST_COUNTS.get(path.rpartition(".")[2]) in value[0]:
        _note(leaves, lists_of_objects, f"{path}.0", value[0])
    elif value_type == "several objects" or has_labels:
        lists_of_objects.add(path)
    leaf = leaves.setdefault(path, Leaf(path))
    leaf.value_types[value_type] += 1
    if isinstance(value, str):
        leaf.characters += len(value)
        leaf.chinese += len(CHINESE.findall(value))
        if len(value) > LONGEST_VALUE:
            digest = hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()
            value = f"{value[:LONGEST_VALUE]}{digest}"
    if value_type not in VALUE_TYPES:
        return
    if value != "":
        leaf.filled += 1
        leaf.hashes.add(hash(value))
    if len(leaf.values) <= MOST_VALUES:
        leaf.values[value] += 1


def _type_of(value: object) -> str:
    """The type of a value as messages name it. A list of one object is walked into, like an object."""
    if value is None or value == []:
        return "null"
    if isinstance(value, str) and value.startswith("[{"):
        with contextlib.suppress(orjson.JSONDecodeError):
            if are_messages(orjson.loads(value)):
                return "turns"
    if is_transcript(value) or are_messages(value):
        return "turns"
    if are_objects(value):
        return "one object" if len(value) == 1 else "several objects"
    if isinstance(value, list):
        return "texts" if are_texts(value) else "list"
    return TYPE_NAMES.get(type(value), type(value).__name__)
