"""Records: the JSON files that Tuneyard writes for itself and for other programs, each a TypedDict.

A record declares its file, and with `format: Literal[N]` its format. Files of earlier formats are lifted to
the present one while they are read, so that results of earlier versions stay usable. `json_schema.py` makes
its schema, which `python -m tools.record_schemas` writes to core/schemas/.

    @record("results.json", lifts=[renamed_keys({"set": "dataset"})])
    class ResultsRecord(TypedDict, total=False):
        format: Required[Literal[2]]
        dataset: Required[str]

    results = read_record(folder / "results.json", ResultsRecord)
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar, cast, get_args, get_type_hints

from tuneyard.core.documents.schema_errors import check_file
from tuneyard.core.errors import ContentError, show_value, unexpected
from tuneyard.core.files import Fields, JsonObject, check_characters, read_object, write_json
from tuneyard.core.installation.checkout import version
from tuneyard.core.language.message import _
from tuneyard.core.records.json_schema import json_schema

Lift = Callable[[Fields, Path], Fields]
"""Makes a record of the next format; the path is for messages."""
R = TypeVar("R")
FORMAT = "format"
NO_FORMAT = 1  # of a file without the key: earlier versions wrote none
_FORMATS: "dict[type, FileFormat]" = {}


@dataclass(frozen=True)
class FileFormat:
    """How files of a record are read and described.

    `file` is the name of the file, whose schema is core/schemas/`schema`. `lifts` make format 2 of format 1,
    format 3 of format 2, and so on.
    """

    type: type
    file: str
    schema_file: str
    title: str
    number: int
    lifts: Sequence[Lift]
    closed: bool

    @cached_property
    def schema(self) -> JsonObject:
        """Its JSON Schema."""
        return json_schema(self.type, self.title, closed=self.closed)

    @cached_property
    def is_valid(self) -> Callable[[object], bool]:
        """Fast check of a value."""
        import jsonschema_rs

        return jsonschema_rs.validator_for(self.schema).is_valid


def record(
    file: str, title: str, *, lifts: Sequence[Lift] = (), schema_file: str | None = None, closed: bool = False
) -> Callable[[type[R]], type[R]]:
    """Declare a TypedDict as the record in files of this name. Its format number is that of `format`.

    `closed`: such files have no other keys. `schema_file` is the name of the schema if it is not `file`; "":
    the schema of another record describes such files.
    """

    def declare(record_type: type[R]) -> type[R]:
        (number,) = get_args(get_type_hints(record_type)[FORMAT])
        if len(lifts) != number - NO_FORMAT:
            raise TypeError(f"{record_type.__name__}: format {number} needs {number - NO_FORMAT} lifts")
        _FORMATS[record_type] = FileFormat(
            record_type, file, file if schema_file is None else schema_file, title, number, lifts, closed
        )
        return record_type

    return declare


def line_record(file: str, title: str) -> Callable[[type[R]], type[R]]:
    """Declare a TypedDict as a line of a .jsonl file, whose format is that of run.json in its folder."""

    def declare(record_type: type[R]) -> type[R]:
        schema_file = f"{Path(file).stem}.json"
        _FORMATS[record_type] = FileFormat(record_type, file, schema_file, title, NO_FORMAT, (), closed=False)
        return record_type

    return declare


def record_formats() -> list[FileFormat]:
    """All records that have been imported."""
    return list(_FORMATS.values())


def format_of(record_type: type) -> FileFormat:
    """The declared format of a record."""
    return _FORMATS[record_type]


def read_record(path: Path, record_type: type[R]) -> R:
    """Read a record, lifted to the present format.

    `ContentError` with the place in the file if a value is not as the type has it, or if a newer Tuneyard
    wrote the file.
    """
    return as_record(read_object(path), path, record_type)


def as_record(fields: Fields, path: Path, record_type: type[R]) -> R:
    """Lift and check the content of a record's file. Errors are those of `read_record`."""
    file_format = _FORMATS[record_type]
    lifted = _lifted(fields, path, file_format)
    try:
        if file_format.is_valid(lifted):
            return cast(R, lifted)
    except UnicodeEncodeError:
        check_characters(json.dumps(lifted, ensure_ascii=False), path)
    try:
        check_file(path, file_format.schema, lifted)
    except ContentError as error:
        raise ContentError(
            _(
                "{problem}; Tuneyard writes this file: put it back as it was, or run its command again",
                problem=error,
            )
        ) from error
    return cast(R, lifted)


def lift_file(path: Path, record_type: type) -> None:
    """Write a file of an earlier format in the present one, if there is such a file."""
    if not path.is_file():
        return
    fields = read_object(path)
    if fields.get(FORMAT) != _FORMATS[record_type].number:
        write_json(path, as_record(fields, path, record_type))


def line_checker(record_type: type) -> Callable[[Mapping[str, object], str], None]:
    """A function that checks a line of a .jsonl file. A file has many: it is made once for all of them.

    `ContentError` begins with the line's place, such as `predictions.jsonl:3`.
    """
    line_format = _FORMATS[record_type]
    is_valid = line_format.is_valid

    def check(fields: Mapping[str, object], place: str) -> None:
        try:
            if is_valid(fields):
                return
        except UnicodeEncodeError:
            check_characters(json.dumps(fields, ensure_ascii=False), place)
        check_file(place, line_format.schema, fields, _("the line"))

    return check


def check_format(fields: Fields, path: Path, record_type: type) -> int:
    """The format of a record's content. `ContentError` if it is none, or one of a newer Tuneyard."""
    file_format = _FORMATS[record_type]
    number = fields.get(FORMAT, NO_FORMAT)
    if type(number) is not int or number < NO_FORMAT:
        raise unexpected(
            path,
            FORMAT,
            number,
            _("the number of a format, such as {number}", number=file_format.number),
        )
    if number > file_format.number:
        raise ContentError(
            _(
                "{path}: found format {number}, written by Tuneyard {writer}; expected format {most} at "
                "most, which Tuneyard {version} reads: install a newer Tuneyard, or make the file again",
                path=path,
                number=show_value(number),
                writer=_writer(fields),
                version=version()["version"],
                most=file_format.number,
            )
        )
    return number


def _lifted(fields: Fields, path: Path, file_format: FileFormat) -> Fields:
    """The content of a file in the present format, which is its first key."""
    number = check_format(fields, path, file_format.type)
    for lift in file_format.lifts[number - NO_FORMAT :]:
        fields = lift(fields, path)
    return {FORMAT: NO_FORMAT} | fields | {FORMAT: file_format.number}


def _writer(fields: Fields) -> str:
    """The version of Tuneyard that wrote a record, if the record has it."""
    tuneyard = fields.get("tuneyard")
    if isinstance(tuneyard, dict) and isinstance(tuneyard.get("version"), str):
        return show_value(tuneyard["version"])
    return _("of another version")


def renamed_keys(names: Mapping[str, str]) -> Lift:
    """A lift that gives keys their new names, in their places. `ContentError` if a file has both names."""

    def lift(fields: Fields, path: Path) -> Fields:
        for old, new in names.items():
            if old in fields and new in fields:
                raise ContentError(
                    _(
                        "{path}: found both `{old}` and `{new}`, expected one: remove `{old}`, the name in "
                        "earlier versions",
                        path=path,
                        old=old,
                        new=new,
                    )
                )
        return {names.get(name, name): value for name, value in fields.items()}

    return lift
