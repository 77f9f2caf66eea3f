"""A dataset as one YAML file: its sources, the columns of its rows, and its output files."""

import string
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

from tuneyard.compiler.spec.column_types import (
    Column,
    ColumnType,
    Names,
)
from tuneyard.compiler.spec.file import (
    Source,
)
from tuneyard.core.datasets import TRAIN_SPLIT
from tuneyard.core.language.message import _

UNLABELLED = "unlabelled"
ROW_NUMBER = "row number"
WHOLE = ""  # stands for all splits together
REJECTED = "rejected.jsonl"
TEMPLATES = ("instruction", "input", "output", "system", "user", "assistant", "text")
TOOLS = "tools"
TEXTS = {"alpaca": ("instruction", "input"), "sharegpt": ("user",), "messages": ("user",), "text": ("text",)}
"""Templates that write the texts of an output, if no column of messages does."""
WRITTEN = {
    "alpaca": ("instruction", "input", "output", "system"),
    "sharegpt": ("system", "user", "assistant"),
    "messages": ("system", "user", "assistant"),
    "text": ("text",),
}
"""Templates that make a record, if no column of messages does."""
FIELDS = {"alpaca": "", "sharegpt": "conversations", "messages": "messages", "text": "text"}


class Output(NamedTuple):
    """One file that a spec writes for each split. `templates` by record field, `roles` by speaker."""

    file: str
    format: str
    templates: dict[str, str]
    field: str
    roles: dict[str, str]
    dataset: str | None = None
    keep: Names = ()
    turns: str = "first"
    wrap_input: str = "{}"

    def file_of(self, split: str) -> str:
        """The name of the file with the rows of a split.

        `qa.json` has the rows of train, and `qa-eval.json` those of a split that a source need not have.
        """
        if _needs_no_suffix(self.file, split):
            return self.file.format(split=split)
        stem, dot, form = self.file.rpartition(".")
        return f"{stem}-{split}{dot}{form}"

    def dataset_of(self, split: str) -> str:
        """The name under which the rows of a split are registered, "" if they are not: `qa`, `qa_eval`."""
        if not self.dataset:
            return ""
        if _needs_no_suffix(self.dataset, split):
            return self.dataset.format(split=split)
        return f"{self.dataset}_{split}"

    def columns_of(self, *fields: str) -> list[str]:
        """The columns that the templates of these record fields name, each once."""
        columns: dict[str, None] = {}
        for key in fields:
            for _unused, name in placeholders(self.templates.get(key, "")):
                if name is not None:
                    columns[name] = None
        return list(columns)


class Filter(NamedTuple):
    """Which rows stay: by keywords in their texts, by length in characters, by the script of the language.

    `taken` are keywords of the sources of a mixture before this one, over the same files: a row with one of
    them is theirs.
    """

    keywords: tuple[str, ...] = ()
    min: int = 0
    max: int | None = None
    language: str | None = None
    taken: tuple[str, ...] = ()


class Split(NamedTuple):
    """How rows are split: shares by split name. `train` gets the rest.

    If it `is_given`, each split has the rows of its own files, and nothing is drawn.
    """

    shares: dict[str, float]
    stratify: str | None = None
    group: str | None = None
    by_hash: bool = False
    seed: int | None = None
    is_given: bool = False


class Mix(NamedTuple):
    """A mixture: sources by name, the total of rows, the seed of the shuffle (None: sources in order)."""

    total: int
    sources: dict[str, "Spec"]
    shuffle: int | None


class Spec(NamedTuple):
    """A validated spec.

    - `raw`: the merged YAML that the others came from, without the changes of the command line.
    - `over`: those changes, with the keys of a spec.
    - `empty`: texts that are no answer.
    - `share`: that of a source in its mixture.
    - `given_as`: the name or the path that finds the spec again, also if a file has a bundled spec's name.
    """

    name: str
    about: str
    source: Source
    columns: tuple[Column, ...]
    labels: dict[str, tuple[object, ...]]
    outputs: tuple[Output, ...]
    group: str | None = None
    near: bool = False
    filter: Filter = Filter()
    clean: Names = ()
    empty: Names = ()
    sample: float | None = None
    drop_duplicates: bool = False
    drop_leaks: bool = False
    split: Split | None = None
    mix: Mix | None = None
    share: float = 0.0
    ignore: Names = ()
    raw: Mapping[str, Any] = {}
    over: Mapping[str, Any] = {}
    given_as: str = ""

    @property
    def input_names(self) -> Names:
        """The names that --source accepts: the splits of the source, or the sources of the mixture."""
        if self.mix:
            return tuple(self.mix.sources)
        return tuple(self.source.splits) or (TRAIN_SPLIT, *self.source.held_out)

    @property
    def splits(self) -> Names:
        """The splits that are written."""
        if self.split:
            return (TRAIN_SPLIT, *self.split.shares)
        if self.mix:
            return (TRAIN_SPLIT,)
        return self.input_names

    def of_input(self, name: str) -> "Spec":
        """The spec of the rows of an input: each source of a mixture has one."""
        return self.mix.sources[name] if self.mix else self

    def outputs_of(self, split: str) -> list[tuple[int, Output]]:
        """The numbered outputs of a split. Those of `WHOLE` are files for all rows: no datasets."""
        is_whole = split == WHOLE
        numbered = enumerate(self.outputs)
        return [(number, output) for number, output in numbered if self.has_all_rows(output) == is_whole]

    def has_all_rows(self, output: Output) -> bool:
        """True for a file with the rows of all splits. It is no dataset."""
        return self.split is not None and not output.dataset and "{split}" not in output.file

    def is_indexed(self, output: Output) -> bool:
        """True if a row index is written beside the file of an output (core/datasets/compiled.py)."""
        return output.dataset is not None or self.has_all_rows(output)

    @property
    def draws_by_seed(self) -> bool:
        """True if rows are drawn with the seed of a compile."""
        if self.mix and any(not source.source.hub.get("stream") for source in self.mix.sources.values()):
            return True
        draws_splits = self.split is not None and not self.split.by_hash and self.split.seed is None
        return draws_splits or self.sample is not None

    @property
    def types(self) -> dict[str, ColumnType]:
        """The type of each column by name."""
        return {column.name: column.type for column in self.columns}

    def named(self, *type_names: str) -> list[str]:
        """The names of the columns of these types, type by type."""
        return [column.name for name in type_names for column in self.columns if column.type.name == name]

    @property
    def recorded(self) -> dict[str, ColumnType]:
        """The types, by column, of the columns that every record has next to its texts."""
        return {name: column_type for name, column_type in self.types.items() if column_type.registry_key}

    @property
    def conversation_column(self) -> str:
        """The name of the column of messages, "" without such a column."""
        return next(iter(self.conversation_columns), "")

    @property
    def conversation_columns(self) -> list[str]:
        """The names of the columns of messages. The first one has the texts of the outputs."""
        return [column.name for column in self.columns if column.type.is_conversation()]

    @property
    def formats(self) -> set[str]:
        """The formats of the outputs."""
        return {output.format for output in self.outputs}

    @property
    def has_answer_template(self) -> bool:
        """True if an output has a template for an answer."""
        return any({"output", "assistant"} & output.templates.keys() for output in self.outputs)

    def writes_conversation(self, output: Output) -> bool:
        """True if the texts of an output come from the column of messages, and not from templates."""
        if not self.conversation_column:
            return False
        if output.format == "text":
            return bool(output.roles)
        return output.format == "alpaca" or "user" not in output.templates

    def has_own_system(self, output: Output) -> bool:
        """True if an output replaces the system texts of the messages by another text."""
        return self.writes_conversation(output) and output.templates.get("system", "{system}") != "{system}"

    def written_by(self, output: Output) -> set[str]:
        """The columns whose values reach the records of one output."""
        from_conversation = self.writes_conversation(output)
        templates = WRITTEN[output.format]
        if from_conversation:
            templates = () if output.format == "text" else ("system",)
        names = {*output.columns_of(*templates), *output.keep, *self.recorded}
        if from_conversation:
            names.add(self.conversation_column)
            names.update(column.name for column in self.columns if column.type.joins_conversation())
        conversation = output.format in ("sharegpt", "messages")
        if conversation:
            names.add(TOOLS)
        if "system" not in output.templates and (
            conversation or (from_conversation and "system" in output.roles)
        ):
            names.add("system")
        if self.has_one_system:
            names.add("system")
        return names & self.types.keys()

    @property
    def has_one_system(self) -> bool:
        """True if it is part of a mixture that has one system text for all its parts."""
        return bool(self.share) and any("system" in output.templates for output in self.outputs)

    @property
    def ignores_system(self) -> bool:
        """True if the system texts of the messages are left out on purpose."""
        return self.has_one_system or "system" in self.ignore

    @property
    def used(self) -> set[str]:
        """The columns that reach an output, or that rows are identified, grouped or split by."""
        names = {column.name for column in self.columns if column.type.is_always_used()}
        for output in self.outputs:
            names |= self.written_by(output)
        compared = [self.group]
        if self.split:
            compared += [self.split.stratify, self.split.group]
        return names.union(filter(None, compared))

    @property
    def lost_in(self) -> dict[str, list[Output]]:
        """By column the outputs that leave out a system text or tools although the spec maps them."""
        lost = {}
        for name in ("system", TOOLS):
            without = [output for output in self.outputs if name not in self.written_by(output)]
            if name in self.types and without:
                lost[name] = without
        return lost

    @property
    def is_generic(self) -> bool:
        """True for specs of files of any origin, which match columns by common names."""
        return not (self.source.files or self.source.hub or self.source.splits)

    @property
    def needs_two_passes(self) -> bool:
        """True if rows are chosen among all rows or shuffled: all are read before the first is written."""
        drops = self.drop_duplicates or self.drop_leaks
        return bool(self.split or self.mix or drops or self.sample is not None)


def _needs_no_suffix(name: str, split: str) -> bool:
    return "{split}" in name or split in (TRAIN_SPLIT, WHOLE)


MOST_REPEATS = 16


def placeholders(template: str) -> list[tuple[str, str | None]]:
    """The pieces of a template, (literal, column name or None). `{{` and `}}` are literal braces.

    `ValueError` for a column that is named so often that its text, 16 MiB at most, would fill the memory.
    """
    pieces = []
    counts: Counter[str | None] = Counter()
    for literal, name, form, conversion in string.Formatter().parse(template):
        if form or conversion:
            raise ValueError(_("{{{name}}}: only a column name may stand between braces", name=name))
        pieces.append((literal, name))
        counts[name] += name is not None
        if counts[name] > MOST_REPEATS:
            raise ValueError(
                _(
                    "{{{name}}} stands more than {most} times in a template: write it once",
                    name=name,
                    most=MOST_REPEATS,
                )
            )
    return pieces
