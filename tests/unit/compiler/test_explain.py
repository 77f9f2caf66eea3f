"""What JSON Schema refuses is said in our words, with its place; jsonschema is loaded only for that."""

import json

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneyard.compiler.kinds import kind_of, kinds
from tuneyard.compiler.spec.file import read_schema
from tuneyard.core.documents.schema_errors import violations

GOOD = {"about": "a", "columns": {"q": ["q"]}, "write": [{"file": "t.jsonl", "format": "alpaca"}]}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"abuot": 1}, [("", "unknown key 'abuot'; did you mean \"about\"?")]),
        ({"about": None}, [("about", "found null, expected text")]),
        ({"about": ""}, [("about", 'found "", expected 1 or more characters')]),
        ({"write": []}, [("write", "found [], expected 1 or more items")]),
        ({"write": [{"file": "a.json"}]}, [("write.0", "'format' is missing")]),
        (
            {"columns": {"q": 3}},
            [("columns.q", "found 3, expected a list of names, or a mapping with `names`")],
        ),
        ({"columns": {"q": []}}, [("columns.q", "found [], expected 1 or more items")]),
        (
            {"columns": {"q": {"nams": ["q"]}}},  # a misspelt key is not also missing
            [
                ("columns.q", "unknown key 'nams'; did you mean \"names\"?"),
            ],
        ),
        (
            {"columns": {"a b": ["q"]}},
            [("columns", 'found "a b", expected a name of letters, digits and _')],
        ),
        (
            {"source": {"files": {"train": True}}},
            [("source.files.train", "found true, expected a path, or a list of paths")],
        ),
        ({"sample": 1.5}, [("sample", "found 1.5, expected more than 0 and less than 1")]),
        ({"split": {"test": -1}}, [("split.test", "found -1, expected more than 0 and less than 1")]),
        ({"clean": ["nfc", "nfc"]}, [("clean", 'found ["nfc", "nfc"], expected no item twice')]),
        (
            {"clean": ["nfk"]},
            [
                (
                    "clean.0",
                    'found "nfk", expected one of nfc, strip, unescape, html; did you mean "nfc"?',
                )
            ],
        ),
        ({"fit": {"grop": "q"}}, [("fit", "unknown key 'grop'; did you mean \"group\"?")]),
    ],
)
def test_words(change, expected):
    found = violations(read_schema("spec"), GOOD | change)
    assert [
        (one.place, f"{one.message}; {one.hint}" if one.hint else one.message) for one in found
    ] == expected


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("ab{}./ \n"),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["names", "is", "train", "x y"]), inner)
    ),
    max_leaves=5,
)


@given(
    st.sampled_from(["about", "columns", "source", "write", "split", "sample", "fit", "labels", "x"]), JSON
)
def test_what_the_fast_validator_refuses_is_explained_without_python(key, value):
    spec = GOOD | {key: value}
    said = list(violations(read_schema("spec"), spec))
    assert bool(said) != jsonschema_rs.validator_for(read_schema("spec")).is_valid(spec)
    for words in [one.line("the spec") for one in said]:
        assert "None" not in words and "True" not in words and "False" not in words and len(words) < 400


@pytest.mark.parametrize(
    ("name", "row", "field", "message"),
    [
        (
            "pubmedqa",
            {
                "question": "a",
                "context": {"contexts": ["b", None]},
                "long_answer": "c",
                "final_decision": "yes",
            },
            "context.contexts (context) 1",
            "found null, expected text",
        ),
        (
            "stackexchange",
            {"question": "a", "answers": []},
            "answers (answer)",
            "found [], expected 1 or more items",
        ),
        ("messages", {"messages": ["hello"]}, "messages (turns) 0", 'found "hello", expected a mapping'),
        (
            "messages",
            {"messages": "hello"},
            "messages (turns)",
            'found "hello" (text), expected a list of turns',
        ),
    ],
)
def test_the_place_inside_a_row_is_named(bench, name, row, field, message):
    report = bench.compile(name, bench.rows("train.jsonl", [row]))
    assert [(p.code, p.field, p.message) for p in report.problems.errors] == [("E105", field, message)]


@pytest.mark.parametrize("kind", [kind.name for kind in kinds().values() if kind.takes_lists])
@given(JSON)
def test_every_nested_value_that_is_refused_is_explained(kind, value):
    schema = kind_of(kind).schema
    assert bool(list(violations(schema, value))) != jsonschema_rs.validator_for(schema).is_valid(value)


def test_jsonschema_is_loaded_only_where_something_is_wrong(bench, run):
    script = (
        "import sys; from pathlib import Path; from tuneyard.compiler.compile import check_spec; "
        "from tuneyard.compiler.request import CompileRequest; "
        "from tuneyard.compiler.spec.model import load_spec; "
        "report = check_spec(load_spec('messages'), CompileRequest(sources=(sys.argv[1],))); "
        "print(report.kept, 'jsonschema' in sys.modules)"
    )
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for row, said in (({"messages": turns}, "1 False\n"), ({"messages": [1]}, "0 True\n")):
        assert run("-c", script, bench.write("t.jsonl", json.dumps(row))).stdout == said
