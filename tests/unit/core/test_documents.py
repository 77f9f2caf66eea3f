"""The one reader of YAML and of JSON Lines: hostile files end in a sentence with their place, and at once."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.messages import raises
from tuneyard.core.documents import (
    dump_short_yaml,
    dump_yaml,
    json_lines,
    parse_yaml,
    read_mapping,
    read_yaml,
)
from tuneyard.core.errors import ContentError

NINE = range(9)
ALIASES = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{','.join(['*' + chr(97 + i)] * 9)}]\n" for i in NINE
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} {{<<: [{','.join(['*' + chr(97 + i)] * 9)}]}}\n" for i in NINE
)
CHAIN = "a0: &a0 [1]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}]\n" for i in range(3000))

BROKEN: dict[str, tuple[str | bytes, str]] = {
    "lists in lists": ("[" * 100_000, "f.yaml; 100"),
    "mappings in mappings": ("".join(" " * i + "a:\n" for i in range(2000)), "more than 100 lists"),
    "a chain of aliases": (CHAIN, "f.yaml; 100,000 values"),
    "aliases of aliases": (ALIASES, "f.yaml; 100,000 values"),
    "merges of merges": (MERGES, "f.yaml; 100,000 values"),
    "an alias in itself": ("b: 1\na: &a [*a]", "f.yaml:2"),
    "equal keys": ("a: 1\nb: 2\na: 3", "f.yaml:3; a"),
    "equal keys inside": ("a:\n  b: 1\n  b: 2", "f.yaml:3; b"),
    "a date that there is not": ("a: !!timestamp 2020-13-45", "f.yaml:1; timestamp"),
    "no number": ("a: !!int ''", "f.yaml"),
    "no truth value": ("a: !!bool maybe", "f.yaml"),
    "a number of 5,000 digits": ("a: " + "9" * 5000, "f.yaml"),
    "bytes of Latin-1": (b"a: caf\xe9", "UTF-8; byte 6"),
    "a control character": ("a: \0", "YAML"),
    "an object of Python": ("a: !!python/object/apply:os.system [x]", "f.yaml:1; YAML"),
    "a mapping as a key": ("? {a: 1}\n: 2", "YAML"),
    "a truth value as a key": ("a:\n  yes: 1", "f.yaml:2; in quotes"),
    "a set": ("a: !!set {b}", "f.yaml:1; set"),
    "bytes": ("a: !!binary YQ==", "f.yaml:1; binary"),
    "two documents": ("a: 1\n---\nb: 2", "f.yaml:2; YAML"),
    "a wrong indent": ("a:\n  b: 1\n c: 2", "f.yaml:3; YAML"),
    "ten megabytes": ("#" * 10_000_001, "10,000,000 bytes"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_yaml_is_refused_with_its_place_and_at_once(what: str) -> None:
    text, facts = BROKEN[what]
    started = time.process_time()
    with raises(ContentError, facts):
        parse_yaml(text, "f.yaml")
    assert time.process_time() - started < 5


def test_dates_stay_text_and_the_lines_of_keys_are_known() -> None:
    read = parse_yaml("# a comment\nday: 2020-13-45\nrate: 1.0e-4\n\nnames: [yes, 'no']\n", "f.yaml")
    assert read.value == {"day": "2020-13-45", "rate": 1e-4, "names": [True, "no"]}
    assert read.lines == {"day": 2, "rate": 3, "names": 5}


def test_an_empty_file_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "f.yaml"
    path.write_bytes(b"\xef\xbb\xbf")
    assert read_yaml(path, "spec").value is None
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_mapping(path, "spec") == {"a": 1}


@pytest.mark.parametrize(("text", "facts"), [("[1]", "1"), ("yes: 1", "")])
def test_what_is_no_mapping_with_text_keys_is_refused(tmp_path: Path, text: str, facts: str) -> None:
    (tmp_path / "f.yaml").write_text(text)
    with raises(ContentError, facts):
        read_mapping(tmp_path / "f.yaml", "spec")


def test_lines_have_their_numbers_and_blank_ones_none(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a": "\xe4\xb8\xad"}')
    assert list(json_lines(path)) == [(1, {"a": 1}), (4, {"a": "中"})]
    path.write_bytes(b"\xef\xbb\xbf")
    assert list(json_lines(path)) == []


@pytest.mark.parametrize(
    ("second", "facts"),
    [
        (b"[1]", "f.jsonl:2; 1"),
        (b'{"a": 1', "f.jsonl:2; JSON"),
        (b'{"a": "\xff"}', "byte 7; f.jsonl:2; UTF-8"),
        ('{"a": 1}'.encode("utf-16"), "f.jsonl:2; UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, second: bytes, facts: str) -> None:
    path = tmp_path / "f.jsonl"
    path.write_bytes(b'{"a": 1}\n' + second + b'\n{"a": 3}\n')
    with raises(ContentError, facts):
        list(json_lines(path))


@pytest.mark.parametrize(
    "text", ["a\x85b: c", "a\u2028b", "a\nb", "a\x00b", "\x1b[31m", "a\tb", " a ", "a: b # c"]
)
@pytest.mark.parametrize("dump", [dump_yaml, dump_short_yaml])
def test_each_text_comes_back_from_yaml(text: str, dump: Callable[[dict[str, object]], str]) -> None:
    assert yaml.safe_load(dump({"key": text, text: [text]})) == {"key": text, text: [text]}


def test_a_text_with_nul_is_refused_by_its_line():
    with raises(ContentError, "r.yaml:2"):
        parse_yaml('a: 1\nb: "x\\0y"\n', "r.yaml")
