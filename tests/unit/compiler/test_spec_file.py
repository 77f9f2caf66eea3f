"""What JSON Schema refuses is said in our words, with its place; jsonschema is loaded only for that."""

import json

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.compiler.conftest import exchange
from tuneyard.compiler.spec.column_types import column_type_of, column_types
from tuneyard.compiler.spec.file import read_schema
from tuneyard.core.documents.schema_errors import violations

GOOD = {"about": "a", "columns": {"q": ["q"]}, "write": [{"file": "t.jsonl", "format": "alpaca"}]}


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
    said = list(violations(read_schema(), spec))
    assert bool(said) != jsonschema_rs.validator_for(read_schema()).is_valid(spec)
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
    report = bench.compile_rows(name, [row])
    assert [(p.code, p.field, p.message) for p in report.problems.errors] == [("E105", field, message)]


@pytest.mark.parametrize("name", [each.name for each in column_types().values() if "items" in each.schema])
@settings(max_examples=25)
@given(JSON)
def test_every_nested_value_that_is_refused_is_explained(name, value):
    schema = column_type_of(name).schema
    validator = jsonschema_rs.validator_for(json.loads(json.dumps(schema)))  # it knows no subclass of str
    assert bool(list(violations(schema, value))) != validator.is_valid(value)


def test_jsonschema_is_loaded_only_where_something_is_wrong(bench, run):
    script = (
        "import sys; from pathlib import Path; from tuneyard.compiler.publish.compile import check_dataset; "
        "from tuneyard.compiler.engine.request import CompileRequest; "
        "from tuneyard.compiler.spec.load import load_spec; "
        "report = check_dataset(CompileRequest(load_spec('messages'), sources=(sys.argv[1],))); "
        "print(report.kept, 'jsonschema' in sys.modules)"
    )
    turns = exchange("a", "b")
    for row, said in (({"messages": turns}, "1 False\n"), ({"messages": [1]}, "0 True\n")):
        assert run("-c", script, bench.write("t.jsonl", json.dumps(row))).stdout == said
