"""Refusals of JSON Schema in words: what was expected is what the schema asks for at that place."""

import pytest

from tuneyard.core.documents.schema_errors import check_file, violations
from tuneyard.core.errors import ContentError

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "rank": {"type": "integer"}, "none": {"type": "null"}},
    "additionalProperties": False,
}
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
