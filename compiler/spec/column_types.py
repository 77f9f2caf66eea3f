"""Columns of a spec and their types (`is:`): one object for each type, in a file of compiler/columns,
or an entry point `tuneyard.columns`.

A column type has its part of each step: the JSON Schema of its values and of its options in a spec, reading
and checking, the lint, the record and the registry entry. A new one is one new file with a `ColumnType`. The
rest of the compiler asks these objects, and names no type.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, cast

import orjson

from tuneyard.compiler.rows import Fields
from tuneyard.core.errors import Problem
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import JsonObject
from tuneyard.core.language.message import _, joined
from tuneyard.core.plugins import Plugin, PluginError, bundled_with, call, registry
from tuneyard.core.records.calls import WrongValueError

if TYPE_CHECKING:
    from tuneyard.compiler.spec.model import Spec
    from tuneyard.core.records import Example

UNTRAINABLE_TURNS = ProblemCode(
    "E107",
    _("turns that cannot be trained on"),
    _(
        "Correct roles, order and end of the turns. `roles:` maps other names, "
        "`calls: text` keeps text next to a call."
    ),
)


Names = tuple[str, ...]
"""Names of columns, or other names that a spec or a column type lists."""
Values = list[object]
Validator = Callable[[object], bool]
Clean = Callable[[str], str]
Schema = Mapping[str, Any]
LoadedRow = Mapping[str, Any]
"""A row that LLaMA-Factory has made of a record."""
Row = JsonObject
"""The checked values of a row by column."""
PROMPT, KTO_TAG = "prompt", "kto_tag"


def written_value(value: object) -> str:
    """A text unchanged, and any other value as JSON: `true`, `1.5`, `null`, `["x"]`."""
    if isinstance(value, str):
        return value
    text = orjson.dumps(value).decode()
    if text[0] == '"':  # a date
        return str(orjson.loads(text))
    return text


class CodedError(WrongValueError):
    """A value that cannot be used, with the code of its problem and the edit that helps."""

    def __init__(self, code: str, *messages: str, fix: str = "") -> None:
        super().__init__(*messages)
        self.code = code
        self.fix = fix


class FileContext(NamedTuple):
    """One source file, for the readers of its columns.

    - `display_path`: its path in messages.
    - `clean`: makes the spec's changes to a text.
    - `sources`: the source column by target column, filled while the file is read.
    - `warnings`: the code, the message and the fix of each warning about the row that is read.
    """

    spec: "Spec"
    display_path: str
    clean: Clean
    sources: Mapping[str, str]
    warnings: list[tuple[str, str, str]]


class Beside(NamedTuple):
    """A column that `data init` proposes next to messages, or next to a question with its answer.

    - `names`: source columns. The first one that is filled is proposed.
    - `conversations`, `questions`: true if it is proposed next to conversations, to questions.
    - `needs`: columns that the file must fill, too.
    - `settings`: further keys of the column in the spec.
    - `accepts`: true if the name and the first values of a source column fit.
    """

    names: Names
    conversations: bool = True
    questions: bool = False
    needs: Names = ()
    settings: Mapping[str, object] = {}
    accepts: Callable[[str, Sequence[object]], bool] = lambda name, values: True  # noqa: ARG005


class ColumnReader:
    """Reads the values of one column in one file. A column type overrides the steps that it needs.

    `noted` counts what `notes` tells of.
    """

    read: Callable[[Any], object] | None = None
    """Reads one checked value. `WrongValueError` if it cannot be used, with the reason. None: values stay."""
    checks_rows = False
    """Whether `check_row` checks values against the rest of their rows."""

    def __init__(self, column: "Column", file: FileContext) -> None:
        self.column = column
        self.file = file
        self.spec = file.spec
        self.noted: Counter[Any] = Counter()
        self.prepare()

    @property
    def source(self) -> str:
        """The source column, "" if the file has none."""
        return self.file.sources.get(self.column.name, "")

    def prepare(self) -> None:
        """Look at the spec and the column, before the first value."""

    def unfold(self, values: Values) -> Values:
        """Bring other spellings of values into the one that the schema describes."""
        return values

    def check_row(self, row: Row) -> Fields:
        """Check a value against the rest of its row (with `checks_rows`); the columns that change.

        `WrongValueError` if the row cannot be used, with the reason.
        """
        del row
        return {}

    def notes(self) -> list[str]:
        """Notes for people on the whole file."""
        return []


@dataclass(frozen=True)
class ColumnType:
    """A type of columns, and its part in each step from a raw value to the entry of a dataset.

    - `schema`: the JSON Schema of a value. Messages show its description.
    - `options`: the further keys of such a column in a spec, with the JSON Schema of each.
    - `default`: the value if the file lacks the column. `is_optional`: it may be missing without a default.
    - `code`: the problem of a value that cannot be read, or does not fit its row.
    - `is_text`: values are texts once they are read. `is_cleaned`: `clean:` changes values before that.
    - `may_be_blank`: an empty value, or null, is read, and the lint warns of it (W204).
    - `takes_objects`: a value may be a list of objects without being a list of rows.
    - `registry_key`: its key in `columns` of a registry entry. Every record contains such a column.
    - `has_answer`: values are answers, or contain them, so that no template needs to write one.
    - `loaded_column`: the column of LLaMA-Factory's loaded rows that `loaded_pairs` compares (`_tools`).
    - `compared`: how the lint compares rows by it: as `PROMPT`, or as the `KTO_TAG` of an answer.
    - `shapes`: the names of the forms of files that `init` proposes as examples of this type (`init/shapes`).
    - `beside`: the column that `init` proposes next to others.
    - `leaf_types`: the types of values that `init` takes for such a column (`FileStatistics`); () for any.
    - `judges_values`: `judge` judges all kept values of a split together, which are counted for it.
    - `refused_types`: types of values that the schema takes and that are wrong.
    """

    name: str
    schema: Schema = field(repr=False)
    options: Mapping[str, Schema] = field(default_factory=dict, repr=False)
    default: object = None
    is_optional: bool = False
    code: str = UNTRAINABLE_TURNS
    is_text: bool = False
    is_cleaned: bool = False
    may_be_blank: bool = False
    takes_objects: bool = False
    registry_key: str = ""
    has_answer: bool = False
    loaded_column: str = ""
    compared: str = ""
    shapes: Names = ()
    beside: Beside | None = None
    leaf_types: Names = ()
    reader: type[ColumnReader] = ColumnReader
    plugin: Plugin | None = field(default=None, repr=False, compare=False)
    judges_values: ClassVar[bool] = False
    refused_types: ClassVar[tuple[type, ...]] = ()

    def __reduce__(self) -> tuple[Callable[[str], "ColumnType"], tuple[str]]:
        return column_type_of, (self.name,)

    def check(self, column: "Column", spec: "Spec") -> None:
        """Refuse a column of this type if the outputs cannot contain it. `ValueError` has the reason."""
        if not self.registry_key:
            return
        if spec.mix or "text" in spec.formats:
            raise ValueError(
                _(
                    "column {column}: neither a mixture nor a text for pretraining can contain {column_type}",
                    column=column.name,
                    column_type=self.name,
                )
            )
        if "alpaca" in spec.formats and spec.conversation_column:
            raise ValueError(
                _(
                    "column {column}: alpaca leaves out turns that {column_type} may refer to. Write "
                    "sharegpt or messages.",
                    column=column.name,
                    column_type=self.name,
                )
            )

    def is_usual_for(self, column: str, *, has_labels: bool) -> bool:
        """True for the type of a column that a spec gives none. `has_labels`: the spec has `labels`."""
        del column, has_labels
        return False

    def is_id(self) -> bool:
        """True if values identify their rows."""
        return False

    def is_always_used(self) -> bool:
        """True if a column is of use to rows whose record does not contain it."""
        return False

    def drops_rows_without_it(self) -> bool:
        """True if a row without a value is no error: it is dropped."""
        return False

    def may_be_messages(self, options: Mapping[str, Any]) -> bool:
        """True if the values of a column with these options may be messages of a conversation."""
        del options
        return False

    def is_conversation(self) -> bool:
        """True if values are conversations, from which the outputs take their texts."""
        return False

    def joins_conversation(self) -> bool:
        """True if values become part of the messages."""
        return False

    def is_pair(self) -> bool:
        """True for one of two answers, in place of `response`. In a conversation it is a message."""
        return False

    def placeholder(self) -> str:
        """What stands in a text for each value in such a column, "" if nothing does."""
        return ""

    def answers_learned(self, numbers: list[int]) -> list[int]:
        """Of the messages that are learned without such a column, those that are learned with it."""
        return numbers

    def from_cells(self, values: Values, type_before: str | None) -> Values:
        """Values of text cells as typed ones. `type_before` is the type of the column in earlier rows."""
        del type_before
        return values

    def explain(self, value: object, location: str, field: str, file: FileContext) -> Problem | None:
        """The problem of a value that the type refuses by more than its schema, None to explain the schema.

        `field` is the column in messages.
        """
        del value, location, field, file
        return None

    def fix_of(self, value: object, field: str) -> str:
        """What to do about a value that the schema refuses, "" if its description says all."""
        del value, field
        return ""

    def as_texts(self, values: Values) -> list[str]:
        """Read values as texts for templates: a text stays, another value is written as JSON."""
        if self.is_text:
            return cast("list[str]", values)
        return list(map(written_value, values))

    def written(self, values: Values, output_format: str) -> Values:
        """Read values as the records of an output format contain them."""
        del output_format
        return values

    def judge(self, values: Counter[object], location: str) -> Problem | str:
        """The error of all kept values of a split, or a line for people, "" if there is nothing to add.

        `values` has the number of each value, `location` is the first file of the split.
        """
        del values, location
        return ""

    def validators(self) -> tuple[Validator, Validator]:
        """Compiled checks: of one value, and of a list of values."""
        return _compiled(json.dumps(dict(self.schema)))

    def loaded_pairs(self, example: "Example", loaded: LoadedRow) -> Iterable[tuple[object, object]]:
        """Pairs of a value in a record and the value that LLaMA-Factory must have loaded for it.

        `loaded` is the row that LLaMA-Factory has made of the record, with `loaded_column`.
        """
        del example, loaded
        return ()

    def unusable(self, loaded: LoadedRow) -> str:
        """A value of a loaded row at which LLaMA-Factory's processor stops, with the expected one, or ""."""
        del loaded
        return ""

    def miscounted(self, loaded: LoadedRow) -> str:
        """A message on a loaded row whose texts have more or fewer placeholders than values, or ""."""
        del loaded
        return ""

    def not_found(self, loaded: LoadedRow) -> str:
        """A message on a file of a loaded row that a training would not find, "" if it would find all."""
        del loaded
        return ""


class Column(NamedTuple):
    """A target column: the source names that it accepts, its type, the value if the file has none of them.

    `options` are the keys that belong to its type (`ColumnType.options`).
    """

    name: str
    names: Names
    type: ColumnType
    default: object = None
    wrap: str = "{}"
    options: Mapping[str, Any] = {}

    @property
    def required(self) -> bool:
        """True if every row must have it."""
        return self.default is None and not self.type.is_optional


FOLDER = "tuneyard.compiler.columns"
COMMON_KEYS = frozenset(("names", "is", "default", "wrap"))
"""The keys of a column in a spec, whatever its type is."""


METHODS = (
    *(
        "is_id",
        "is_always_used",
        "drops_rows_without_it",
        "may_be_messages",
        "is_conversation",
        "joins_conversation",
    ),
    *("is_pair", "placeholder", "answers_learned", "from_cells", "explain", "fix_of", "as_texts", "written"),
)
"""Methods that the steps of a compile call; where they call another one, it is guarded there."""


@cache
def bundled_types() -> dict[str, ColumnType]:
    """Our own column types by name, in the order of their files."""
    return {column_type.name: column_type for column_type in bundled_with(FOLDER, ColumnType)}


@cache
def column_types() -> dict[str, ColumnType]:
    """Our own column types and those of plug-ins. `PluginError` names a plug-in that cannot be used."""
    types: dict[str, ColumnType] = registry("tuneyard.columns", FOLDER, ColumnType, "ColumnType")
    options: dict[str, Schema] = {}
    for column_type in types.values():  # ours come first
        if column_type.plugin is not None:
            with column_type.plugin.guarded():
                _check_declaration(column_type, options)
            for name in METHODS:
                guarded_method = partial(call, column_type.plugin, PluginError, getattr(column_type, name))
                object.__setattr__(column_type, name, guarded_method)  # it is frozen
        options.update(column_type.options)
    return types


def _check_declaration(column_type: ColumnType, options: Mapping[str, Schema]) -> None:
    """Refuse a plug-in's column type that no spec could use. `options` are those of the types before it."""
    if not isinstance(column_type.schema.get("description"), str):
        raise TypeError(_("its schema has no description, which messages show"))
    column_type.validators()
    for key, schema in column_type.options.items():
        if key in COMMON_KEYS or options.get(key, schema) != schema:
            raise ValueError(_("the option {key!r} has another meaning at other columns: rename it", key=key))
        _compiled(json.dumps(schema))


def column_type_of(name: str) -> ColumnType:
    """The column type of a valid spec. Plug-ins are only looked for if it is none of ours (30 ms)."""
    return bundled_types().get(name) or column_types()[name]


def check_options(column: str, column_type: ColumnType, keys: Iterable[str]) -> None:
    """Refuse options of a column that belong to another type: they would have no effect (`ValueError`)."""
    for key in set(keys) - column_type.options.keys() - COMMON_KEYS:
        owners = [f"`is: {other.name}`" for other in column_types().values() if key in other.options]
        if owners:
            raise ValueError(
                _(
                    "column {column}: `{key}` has no effect with `is: {column_type}`; it is for {owners}",
                    column=column,
                    key=key,
                    column_type=column_type.name,
                    owners=joined(owners, _(" or ")),
                )
            )


@cache
def _compiled(schema: str) -> tuple[Validator, Validator]:
    """Checks by a JSON Schema: of a value, and of a list of them. Each of 100,000 files is checked by it."""
    from jsonschema_rs import validator_for

    values: JsonObject = json.loads(schema)
    return validator_for(values).is_valid, validator_for({"type": "array", "items": values}).is_valid
