"""Refusals of JSON Schema in words: what was expected is what the schema asks for at that place."""

import os
import subprocess
import sys
import time

import pytest

from tuneyard.core.documents.schema_errors import check_file, violations
from tuneyard.core.errors import ContentError

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "rank": {"type": "integer"}, "none": {"type": "null"}},
    "additionalProperties": False,
}
CHECK = """
import sys
from pathlib import Path
from tuneyard.compiler.spec.file import read_spec
from tuneyard.core.errors import ContentError
try:
    read_spec(Path(sys.argv[1]))
except ContentError as error:
    print(error)
"""
LARGE = "a number of at most 9,007,199,254,740,992"


@pytest.mark.parametrize("large", [2**70, 1e99, float("inf"), float("nan")])
def test_a_huge_number_is_told_of_its_size_only_where_a_number_is_expected(large):
    assert [one.message.partition(", ")[2] for one in violations(SCHEMA, {"name": large}, exact=True)] == [
        "expected text"
    ]
    assert [one.message.partition(", ")[2] for one in violations(SCHEMA, {"rank": large}, exact=True)] == [
        f"expected {LARGE}"
    ]


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ({"none": 1}, "none: found 1, expected null"),
        ({"nam": "x"}, "the file: unknown key 'nam'; did you mean \"name\"?"),
    ],
)
def test_a_refusal_is_a_line(value, line):
    assert [one.line("the file") for one in violations(SCHEMA, value)] == [line]


def test_two_keywords_that_say_the_same_are_told_once(tmp_path):
    either = {
        "description": "one of a and b",
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        "dependentRequired": {"c": ["a"]},
    }
    with pytest.raises(ContentError) as refused:
        check_file(tmp_path / "w.yaml", either, {"c": 1})
    assert str(refused.value).count("expected one of a and b") == 1


def test_twenty_choices_are_all_named_and_more_are_cut():
    names = [f"name-{number}" for number in range(21)]
    (twenty,) = violations({"enum": names[:20]}, "x")
    assert twenty.message.endswith("name-18, name-19")
    (more,) = violations({"enum": names}, "x")
    assert more.message.endswith("name-18, name-19, …")


BAD_SPEC = """
about: 3
colums: x
split: {eval: 2, stratify: 4, foo: 1}
columns: {question: {names: 3, is: nothing, zz: 1}, answer: 7}
write: [{dataset: 3, file: 4, format: nope, q: 1}, 7]
zeta: 1
mix: {total: a, parts: 3, bb: 2}
"""
PLACES = [
    "the spec: unknown key 'colums'",
    "the spec: unknown key 'zeta'",
    "about:",
    "split.eval:",
    "split.stratify:",
    "split.foo:",
    "columns.question.is:",
    "columns.answer:",
    "write.0:",
    "write.0.dataset:",
    "write.0.file:",
    "write.0.format:",
    "write.1:",
    "mix: unknown key 'bb'",
    "mix.total:",
    "mix.parts:",
]


@pytest.mark.parametrize("seed", ["0", "1", "3", "4", "77"])
def test_several_errors_come_in_the_order_of_the_document(tmp_path, seed):
    """Python orders sets of texts by a seed, another one in each process."""
    path = tmp_path / "bad.yaml"
    path.write_text(BAD_SPEC)
    command = [sys.executable, "-c", CHECK, str(path)]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = [line.removeprefix(f"{path}: ") for line in done.stdout.splitlines()]
    assert len(lines) == len(PLACES)
    for line, place in zip(lines, PLACES, strict=True):
        assert line.startswith(place)


def test_many_errors_are_put_in_order_in_a_moment():
    value = {str(number): {"x": number} for number in range(20_000)}
    began = time.process_time()
    found = list(violations({"additionalProperties": {"additionalProperties": False}}, value))
    assert time.process_time() - began < 20 and len(found) == 20_000 and found[7].place == "7"
