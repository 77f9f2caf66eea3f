"""Statistics of a file's columns for `data init`, by path. Column types recognise their columns in them."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import product

from tuneyard.compiler.chat.forms import FormCounts
from tuneyard.compiler.read.remote import SourcePath
from tuneyard.compiler.rows import MISSING, Fields, ObjectRows, Prefix, walker
from tuneyard.compiler.rows.problems import Problems
from tuneyard.compiler.spec.file import Source
from tuneyard.core.datasets.column_meanings import USUAL_NAMES, meaning, usual_steps
from tuneyard.core.language.han import HAN
from tuneyard.core.language.message import _

MOST_VALUES = 30
"""Distinct values that a column of labels has at most."""
PROSE = 15
"""Characters that a text has on average, at least."""
_MEDIA = re.compile(r"\.(png|jpe?g|gif|webp|bmp|mp4|wav|mp3)$", re.IGNORECASE)
FEWEST_ROWS = 20
"""Rows that are worth a split, or prove that a label repeats."""
CHINESE = re.compile(f"[{HAN}]")


@cache
def _last_steps(role: str) -> frozenset[str]:
    """The last steps of the usual names of a role."""
    return frozenset(usual_steps(name)[-1] for name in USUAL_NAMES[role])


def paths_above(path: str) -> Iterator[str]:
    """Yield the paths that a path begins with: `a` and `a.b` of `a.b.c`."""
    end = path.find(".")
    while end >= 0:
        yield path[:end]
        end = path.find(".", end + 1)


@dataclass(eq=False)
class Leaf:
    """One value of a row by its path: how often it has which type, and how often which value, while few.

    `names` are those of its numbers, if the file keeps them (ClassLabel of Hugging Face).
    """

    path: str
    value_types: Counter[str] = field(default_factory=Counter)
    values: Counter[object] = field(default_factory=Counter)
    characters: int = 0
    chinese: int = 0
    filled: int = 0
    hashes: set[int] = field(default_factory=set)
    names: dict[object, str] = field(default_factory=dict)

    def named(self, value: object) -> object:
        """The name of a value, if its number has one."""
        return self.names.get(value, value)

    @property
    def with_kind(self) -> str:
        """The path and the type of its values for a message, e.g. `body (text)`."""
        return _("{column} ({value_type})", column=self.path, value_type=_(self.value_type))

    @property
    def in_chinese(self) -> bool:
        """True if it is Chinese text: three tenths of its characters are."""
        return self.chinese > 0.3 * self.characters

    @property
    def length(self) -> int:
        """Its characters, each Chinese one twice: Chinese says as much in half of them."""
        return self.characters + self.chinese

    @cached_property
    def steps(self) -> tuple[str, ...]:
        """The steps of the path in the vocabulary's spelling, without positions in lists."""
        return usual_steps(self.path)

    @property
    def name(self) -> str:
        """The last step of the path in the vocabulary's spelling."""
        return self.steps[-1] if self.steps else ""

    def goes_by(self, name: str) -> bool:
        """True if the path ends in a name of the vocabulary, which may have several steps."""
        name_steps = usual_steps(name)
        return self.steps[-len(name_steps) :] == name_steps

    def is_called(self, role: str) -> bool:
        """True if the path ends in one of the usual names of a role."""
        return self.name in _last_steps(role) and any(map(self.goes_by, USUAL_NAMES[role]))

    @property
    def value_type(self) -> str:
        """The type that most of its values have, null left aside."""
        value_types = [value_type for value_type in self.value_types if value_type != "null"]
        return max(value_types, key=self.value_types.__getitem__, default="null")


@dataclass
class FileStatistics:
    """What `data init` knows of a file: how to read it, the first rows, the leaves by path, problems.

    `user_columns` are the paths that the user named, by role; `first` the first thousand rows, at least one.
    `folder_names` are those of the folders in a folder, which the spec does not use. `forms` counts the rows
    of exports.
    """

    path: SourcePath
    source: Source
    rows: int = 0
    leaves: dict[str, Leaf] = field(default_factory=dict)
    problems: Problems = field(default_factory=lambda: Problems(1))
    user_columns: dict[str, str] = field(default_factory=dict)
    first: list[Fields] = field(default_factory=list)
    folder_names: list[str] = field(default_factory=list)
    forms: FormCounts = field(default_factory=FormCounts)

    @property
    def is_txt(self) -> bool:
        """True for a .txt, also a packed one: its lines may be rows of another format."""
        return self.path.name.removesuffix(".gz").endswith(".txt")

    def lines(self, path: str) -> list[str]:
        """The texts of a column in the first rows, without comments (`# …`) unless it has nothing else."""
        texts = [str(row.get(path, "")) for row in self.first]
        return [text for text in texts if not text.startswith("#")] or texts

    def filled_columns(self) -> set[str]:
        """The columns with a value in one of the first rows."""
        return {name for row in self.first for name, value in row.items() if value not in (None, "", [])}

    @property
    def first_rows(self) -> ObjectRows:
        """The first rows as a reader yields them."""
        return ObjectRows(Prefix(""), range(len(self.first)), self.first)

    def user_leaf(self, role: str) -> Leaf | None:
        """The leaf that the user named for a role (text, text2, label, answer)."""
        return self.leaves.get(self.user_columns.get(role, ""))

    def named(self, names: Iterable[str], value_types: Sequence[str] = ("text",)) -> Leaf | None:
        """The first leaf of these types that goes by one of the names, by name and then by type."""
        for name, value_type in product(names, value_types):
            for leaf in self._leaves_by_last_step.get(usual_steps(name)[-1], ()):
                if leaf.value_type == value_type and leaf.goes_by(name):
                    return leaf
        return None

    @cached_property
    def _leaves_by_last_step(self) -> dict[str, list[Leaf]]:
        """The leaves by the last step of their paths: a file may have one key of its own in each row."""
        leaves: dict[str, list[Leaf]] = {}
        for leaf in self.leaves.values():
            leaves.setdefault(leaf.name, []).append(leaf)
        return leaves

    @cached_property
    def has_responses(self) -> bool:
        """True if a column has responses of people (Argilla)."""
        return any("responses" in leaf.steps for leaf in self.leaves.values())

    def called(self, *roles: str, value_types: Sequence[str] = ("text",)) -> Leaf | None:
        """The first leaf of these types that has a usual name of the roles."""
        return self.named([name for role in roles for name in USUAL_NAMES[role]], value_types)

    def named_like(self, *roles: str) -> Leaf | None:
        """The only prose whose name ends in one of the roles, as `customer_question` does, if any."""
        names = [name for role in roles for name in USUAL_NAMES[role] if name != "a"]
        endings = tuple(f"_{name}" if name.isascii() else name for name in names)
        prose = [
            leaf
            for leaf in self.leaves.values()
            if f"_{leaf.name}".endswith(endings)
            and leaf.length >= PROSE * self.rows
            and not meaning(leaf.path)
        ]
        return prose[0] if len(prose) == 1 else None

    def names_media(self, leaf: Leaf) -> bool:
        """True if the values of a leaf are names of images, videos or audios."""
        return all(isinstance(value, str) and _MEDIA.search(value) for value in self.each_value(leaf))

    def values(self, leaf: Leaf) -> list[object]:
        """The values of a leaf in the first rows."""
        return list(self.each_value(leaf))

    def each_value(self, leaf: Leaf) -> Iterator[object]:
        """Yield the values of a leaf in the first rows, for a question that the first few may answer.

        A row without the leaf has null.
        """
        for value in map(walker(leaf.path), self.first):
            yield None if value is MISSING else value
