"""Patterns of an adapter_config.json: a config may have one for each of 100,000 modules.

PEFT matches a module with one pattern after another. Most patterns are names, which are looked up here. Only
the others, regular expressions, are tried in turn.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import pairwise

_NOT_IN_NAMES = re.compile(r"[\\\[\](){}*+?|^$]")


def is_expression(pattern: str) -> bool:
    """True if a pattern is more than a name. The dots of a name match any character, as PEFT has it."""
    return _NOT_IN_NAMES.search(pattern) is not None


class EndPatterns:
    """Patterns of the ends of module paths, as in PEFT's get_pattern_key: `(.*\\.)?(PATTERN)$`."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Sort the patterns: names by their length and their dots, then the regular expressions."""
        self._names: dict[int, dict[tuple[int, ...], dict[str, int]]] = {}
        self._expressions: list[tuple[int, re.Pattern[str]]] = []
        self._patterns = list(patterns)
        for number, pattern in enumerate(self._patterns):
            if is_expression(pattern):
                self._expressions.append((number, re.compile(rf"(.*\.)?({pattern})$")))
            else:
                dots = tuple(place for place, letter in enumerate(pattern) if letter == ".")
                by_dots = self._names.setdefault(len(pattern), {})
                by_dots.setdefault(dots, {}).setdefault(pattern, number)

    def first(self, module: str) -> str | None:
        """The first of the patterns that matches a module path, None if none does."""
        first = min(self._numbers_of_names(module), default=len(self._patterns))
        for number, expression in self._expressions:
            if number >= first:
                break
            if expression.match(module):
                first = number
                break
        if first == len(self._patterns):
            return None
        return self._patterns[first]

    def _numbers_of_names(self, module: str) -> Iterator[int]:
        """Yield the numbers of the names that match a module path."""
        for end in ends_of(module):
            for dots, numbers in self._names.get(len(end), {}).items():
                name = end
                if any(end[place] != "." for place in dots):
                    name = _with_dots(end, dots)
                if name in numbers:
                    yield numbers[name]


class LayerPatterns:
    """Patterns of the part before a layer's number, as PEFT has it: `.*\\.PATTERN\\.(\\d+)\\.`."""

    def __init__(self, patterns: Iterable[str]) -> None:
        """Sort the patterns: names of one part, then the others."""
        self._names: dict[str, int] = {}
        self._expressions: list[tuple[int, re.Pattern[str]]] = []
        for number, pattern in enumerate(patterns):
            if is_expression(pattern) or "." in pattern:
                self._expressions.append((number, re.compile(rf".*\.{pattern}\.(\d+)\.")))
            else:
                self._names.setdefault(pattern, number)

    def layer_of(self, module: str) -> str | None:
        """The digits of a module's layer by the first pattern that matches, None if none does."""
        parts = module.split(".")
        first, digits = len(self._names) + len(self._expressions), None
        for name, following in pairwise(parts[1:-1]):  # the last of equal names counts
            number = self._names.get(name)
            if number is not None and number <= first and following.isdecimal():
                first, digits = number, following
        for number, expression in self._expressions:
            if digits is not None and number > first:
                break
            match = expression.match(module)
            if match:
                return match[1]
        return digits


class NamesInFull:
    """Names of `modules_to_save`, found in module paths and at their ends."""

    def __init__(self, names: Iterable[str]) -> None:
        """Sort the names by their number of parts and by their length."""
        self._names = frozenset(names)
        self._part_counts = {name.count(".") + 1 for name in self._names}
        self._lengths = {len(name) for name in self._names}

    def are_part_of(self, module: str) -> bool:
        """True if one of the names is a part of a module path, or some parts in a row."""
        parts = module.split(".")
        for count in self._part_counts:
            for start in range(len(parts) - count + 1):
                if ".".join(parts[start : start + count]) in self._names:
                    return True
        return False

    def ends_of(self, module: str) -> Iterator[str]:
        """Yield the names that a module path ends with: `my_lm_head` ends with `lm_head` too."""
        for length in self._lengths:
            end = module[max(len(module) - length, 0) :]
            if end in self._names:
                yield end


def ends_with(path: str, name: str) -> bool:
    """True if the last parts of a module path are `name`: `a.b.q_proj` ends with `b.q_proj`."""
    return path == name or path.endswith(f".{name}")


def ends_of(path: str) -> Iterator[str]:
    """Yield the names that a module path ends with: `a.b.q_proj`, `b.q_proj` and `q_proj`."""
    yield path
    point = path.find(".")
    while point >= 0:
        yield path[point + 1 :]
        point = path.find(".", point + 1)


def _with_dots(text: str, places: Iterable[int]) -> str:
    """A text with dots at these places."""
    letters = list(text)
    for place in places:
        letters[place] = "."
    return "".join(letters)
