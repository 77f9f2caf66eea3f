"""Alpaca records with earlier turns beside the question: written as they stand, and part of what is asked."""

import pytest

from tests.messages import raises
from tuneyard.compiler.read.dataset_reader import stored_examples
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.errors import ContentError

ASKED = {"instruction": "And then?", "output": "We go home."}
EARLIER = [["Where are we?", "In town."]]


def test_rows_that_differ_in_history_alone_are_different_questions(bench):
    rows = [ASKED | {"history": EARLIER}, ASKED, ASKED | {"output": "We stay.", "history": []}]
    report = bench.compile_rows("alpaca", rows)
    assert [(code, place.rsplit("/", 1)[-1]) for code, place in bench.codes(report)] == [
        ("W203", "train.jsonl:3")
    ]
    shown = [prompt for examples in stored_examples("alpaca", bench.out) for prompt in examples.prompts()]
    assert shown == ["Where are we?\nIn town.\nAnd then?", "And then?", "And then?"]


def test_history_is_cleaned_as_the_question_is(bench):
    spec = "about: own\nlike: alpaca\nclean: [strip]\n"
    bench.compile_rows(spec, [ASKED | {"history": [[" Where?\n", "\tHere. "]]}])
    assert bench.first("alpaca.json")["history"] == [["Where?", "Here."]]


@pytest.mark.parametrize("texts", [["Where?"], ["Where?", "Here.", "And now?"]])
def test_a_pair_of_more_or_fewer_than_two_texts_is_refused(bench, texts):
    rows = [ASKED | {"history": EARLIER}, ASKED | {"history": [*EARLIER, texts]}]
    report = bench.compile_rows("alpaca", rows)
    assert bench.codes(report) == [("E105", "train.jsonl:2")]
    assert report.failed and not bench.out.exists()


@pytest.mark.parametrize(
    ("write", "turns"),
    [
        ("{format: sharegpt, user: '{q}', assistant: '{a}'}", ""),
        ("{format: alpaca, turns: history}", "  t: {names: [t], is: turns}\n"),
        ("{format: text, text: '{q}'}", ""),
    ],
)
def test_other_records_have_no_place_for_it(bench, write, turns):
    output = write.replace("{format", "{dataset: d, file: d.jsonl, format", 1)
    columns = "  q: [q]\n  a: [a]\n  before: {names: [history], is: history}\n"
    spec = bench.write("own.yaml", f"about: own\ncolumns:\n{columns}{turns}write:\n  - {output}\n")
    with raises(ContentError):
        load_spec(str(spec))


def test_a_history_of_preference_pairs(bench):
    spec = "about: own\nlike: pairs\ncolumns:\n  history: {names: [history], is: history}\n"
    row = {"instruction": "And then?", "chosen": "We go home.", "rejected": "No.", "history": EARLIER}
    bench.compile_rows(spec, [row])
    entry = bench.registry()["pairs"]
    assert entry["ranking"] and entry["columns"]["history"] == "history"
    assert (
        next(bench.out.rglob("pairs*.json*")).read_text().count('"history":[["Where are we?","In town."]]')
        == 1
    )
