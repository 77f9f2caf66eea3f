"""The one reader and writer of YAML, the reader of JSON Lines: bounded, strict, errors with file and line.

YAML 1.1 with text as keys, and without dates (they stay text), equal keys, and aliases for themselves or for
endless values.
"""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeGuard

from tuneyard.core.errors import ContentError, wrong_value
from tuneyard.core.files import Fields, parse_json, require
from tuneyard.core.files.bounded_reading import BrokenListError, JsonListReader, lines_of, open_regular
from tuneyard.core.language.message import _, relative

if TYPE_CHECKING:
    import yaml

MOST_BYTES = 10_000_000  # of a YAML file; ours have a few thousand
MOST_VALUES = 100_000
MOST_DEPTH = 100
MOST_DIGITS = 1000  # of a whole number: Python prints 4,300 at most
LARGEST = 2.0**53  # above it not every whole number is a float; no step, rank or rate is as large
BOM = b"\xef\xbb\xbf"
_TAG = "tag:yaml.org,2002:"
_KEYS = (f"{_TAG}str", f"{_TAG}merge")
_VALUES = ("null", "bool", "int", "float", "str", "seq", "map")


class Yaml(NamedTuple):
    """Value of a YAML text, and the line (from 1) of each key of its outermost mapping."""

    value: object
    lines: dict[str, int]


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number to calculate with: no boolean, no NaN, not too large."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def read_yaml(path: Path, description: str) -> Yaml:
    """Read a YAML file. `RequestError` with its `description` if missing, `ContentError` if broken."""
    require(path, description)
    with open_regular(path) as file:
        return parse_yaml(file.read(MOST_BYTES + 1), path)


def read_mapping(path: Path, description: str) -> Fields:
    """Read a YAML file that must be a mapping; `ContentError` otherwise."""
    value = read_yaml(path, description).value
    if not isinstance(value, dict):
        raise wrong_value(path, value, _("a mapping (`key: value` lines)"))
    return value


def parse_yaml(text: bytes | str, place: object) -> Yaml:
    """Parse YAML (None for an empty text). `ContentError` begins with `place` and the line."""
    import yaml

    place = relative(place)
    if len(text) > MOST_BYTES:
        raise ContentError(
            _(
                "{path}: more than {bytes:,} bytes, which no file of settings has",
                path=place,
                bytes=MOST_BYTES,
            )
        )
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        _check_depth(place, text)
        loader = _loader()(text)  # a safe loader
        root = loader.get_single_node()
        if root is None:
            return Yaml(None, {})
        _size(root, place, {})
        lines = {}
        if isinstance(root, yaml.MappingNode):
            keys = [key for key, _unused in root.value if isinstance(key, yaml.ScalarNode)]
            lines = {key.value: key.start_mark.line + 1 for key in keys}
        value = loader.construct_document(root)
    except UnicodeDecodeError as error:
        raise ContentError(
            _("{place}: not UTF-8 at byte {byte}: save it as UTF-8", place=place, byte=error.start)
        ) from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = error.problem
        without_blank = re.search(r"^\w+:(?=\S)", str(text), re.MULTILINE)
        if without_blank is not None:  # which YAML notices far below
            line = str(text).count("\n", 0, without_blank.start()) + 1
            problem = _("no blank after {key}", key=without_blank[0])
        raise ContentError(
            _(
                "{place}: not YAML: {problem}; indent with spaces, write `key: value`, close each "
                "quote, and put a value with a colon, # or bracket in quotes",
                place=f"{place}:{line}",
                problem=problem,
            )
        ) from error
    except (yaml.YAMLError, ValueError, TypeError, LookupError) as error:  # 5,000 digits, !!bool maybe
        raise ContentError(
            _("{path}: not YAML: a value that does not fit: {error}", path=place, error=error)
        ) from error
    return Yaml(value, lines)


def dump_yaml(value: Fields) -> str:
    """Serialise a mapping as YAML. Keys keep their order, and letters outside of ASCII are not escaped."""
    import yaml

    return yaml.dump(dict(value), Dumper=_dumper(), sort_keys=False, allow_unicode=True)


def dump_short_yaml(value: Fields) -> str:
    """YAML as people write it: the innermost lists and mappings below a key are on one line each.

    Lists of mappings keep one setting a line. Texts are never folded.
    """
    import yaml

    parts = []
    for key, inner in value.items():
        flow_style = None if isinstance(inner, dict) else False  # None: only the innermost are on one line
        part = yaml.dump(
            {key: inner},
            Dumper=_dumper(),
            sort_keys=False,
            allow_unicode=True,
            default_flow_style=flow_style,
            width=100_000,
        )
        parts.append(part)
    return "".join(parts)


@cache
def _dumper() -> "type[yaml.SafeDumper]":
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes a text with line breaks or control characters in double quotes, which escape them.

        PyYAML writes U+0085 and U+2028 as they are in single quotes, where every reader takes them as blanks.
        """

        def ignore_aliases(self, _data: object) -> bool:
            """Write equal values each in full, without references."""
            return True

    def represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
        style = None if text.isprintable() else '"'
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Dumper.add_representer(str, represent_text)
    return Dumper


@cache
def _loader() -> "type[yaml.SafeLoader]":
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # chosen at run time
        """Python has no date 2020-13-45, and a version such as 2024-01-01 should stay a text."""

    resolvers = {}
    for first_letter, pairs in Loader.yaml_implicit_resolvers.items():
        resolvers[first_letter] = [pair for pair in pairs if pair[0] != "tag:yaml.org,2002:timestamp"]
    Loader.yaml_implicit_resolvers = resolvers
    return Loader


def _check_depth(place: object, text: str) -> None:
    """Refuse deep nesting by the parser's events: the C loader's recursion would overflow the stack."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=_loader()):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MOST_DEPTH:
            raise ContentError(
                _(
                    "{path}: more than {depth} lists and mappings in one another",
                    path=place,
                    depth=MOST_DEPTH,
                )
            )


def _size(node: "yaml.Node", place: object, sizes: "dict[yaml.Node, int]") -> int:
    """How many values a node has, with aliases expanded.

    `sizes` has those of the nodes before, 0 of one that is not yet complete. `ContentError` for equal keys
    and keys that are no text (a bare yes, no, on or off is a truth value), for too many values, for endless
    ones, and for those that JSON lacks.
    """
    import yaml

    if node in sizes:
        if not sizes[node]:
            raise ContentError(_("{place}: an alias in here leads back to itself", place=_line(place, node)))
        return sizes[node]
    if node.tag.removeprefix(_TAG) not in _VALUES:
        raise ContentError(
            _("{place}: not YAML: a value with the tag {tag}", place=_line(place, node), tag=node.tag)
        )
    if isinstance(node, yaml.ScalarNode) and "\0" in node.value:  # no path can have it
        raise ContentError(_("{place}: a text with the character \\0: take it out", place=_line(place, node)))
    if node.tag == f"{_TAG}int" and len(node.value) > MOST_DIGITS:  # of any base: 0xff…, too
        raise ContentError(
            _(
                "{place}: found a number of {digits:,} digits, expected {most:,} at most; write it in quotes "
                "if it is a text",
                place=_line(place, node),
                digits=len(node.value),
                most=MOST_DIGITS,
            )
        )
    sizes[node] = 0
    parts = node.value if isinstance(node, yaml.SequenceNode) else []
    if isinstance(node, yaml.MappingNode):
        keys = set()
        for key, value in node.value:
            if key.tag not in _KEYS:
                fix = _('write it in quotes, as "yes" or "no"')
                if value.value == "":  # {eval: 0,2}
                    fix = _("write a decimal point, not a comma (0.2)")
                raise ContentError(
                    _(
                        "{place}: a key that YAML does not read as text: {fix}",
                        place=_line(place, key),
                        fix=fix,
                    )
                )
            if key.value in keys:
                raise ContentError(
                    _("{path}: duplicate key {key!r}: keep one", path=_line(place, key), key=key.value)
                )
            keys.add(key.value)
            parts.append(value)
    size = 1
    for part in parts:
        size += _size(part, place, sizes)
    if size > MOST_VALUES:
        raise ContentError(
            _(
                "{path}: more than {most:,} values, where an alias counts as all that it stands for; "
                "keep rows of data in a .jsonl",
                path=place,
                most=MOST_VALUES,
            )
        )
    sizes[node] = size
    return size


def _line(place: object, node: "yaml.Node") -> str:
    """The line on which a node begins: `recipe.yaml:3`."""
    return f"{place}:{node.start_mark.line + 1}"


def json_lines(path: Path, *, growing: bool = False) -> Iterator[tuple[int, Fields]]:
    """Yield (line number from 1, object) of each line that is not blank; `ContentError` names `path:line`.

    If the file is still `growing`, a last line without line break is skipped: its writer was killed.
    """
    for number, line in lines_of(path):
        is_cut_off = not line.endswith(b"\n")
        text = line.strip()
        if not text or text == BOM or (growing and is_cut_off):
            continue
        value = parse_json(text, path, number)
        if not isinstance(value, dict):
            raise wrong_value(f"{path}:{number}", value, _("an object"))
        yield number, value


def json_items(path: Path) -> Iterator[object]:
    """Yield the items of a JSON list. One at a time is in memory; `ContentError` names `path:line`."""
    try:
        yield from JsonListReader(path).items()
    except BrokenListError as error:
        parse_json(error.text, path, error.line, column=error.column)
        raise
