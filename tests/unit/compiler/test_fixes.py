"""Fixes that messages name: each leads on, and none names what the user has just done."""

import json

import pytest

from tests.unit.compiler.conftest import ROWS
from tuneyard.compiler.cli import cli
from tuneyard.compiler.init.command import propose
from tuneyard.core.errors import ContentError
from tuneyard.core.records import read_example


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ("", 'unlabelled: [""]'),
        ("  ", 'unlabelled: ["  "]'),
        (None, "fill it"),
        ({"name": "yes"}, "label=label.KEY"),
        ([{"name": "yes"}], "label=label.KEY"),
    ],
)
def test_a_label_that_is_none_gets_a_fix_of_its_own(bench, value, hint):
    report = bench.compile_rows("rte", [*ROWS, ROWS[0] | {"label": value, "idx": 7}])
    (problem,) = report.problems.errors
    assert problem.code == "E104" and hint in problem.hint


def test_a_spec_of_the_users_own_is_not_sent_to_init(here, bench):
    rows = [ROWS[0] | {"label": label} for label in ("a", "b", "c")]
    source = bench.rows("train.jsonl", rows)
    own = bench.write("own.yaml", "like: rte\n")
    assert "data init" in here(cli, "check", "rte", "--source", source, code=1).stderr
    assert "data init" not in here(cli, "check", own, "--source", source, code=1).stderr


@pytest.mark.parametrize(
    ("parts", "fix"),
    [
        ([{"type": "reasoningContent", "x": "hm"}, {"text": "a"}], "reasoning_content"),
        ([{"reasoningContent": {"text": "hm"}}, {"text": "a"}], "reasoning_content"),
        ([{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": "a"}], "reasoning_content"),
        ([{"type": "picture", "src": "x"}], "write a picture"),
        ([{"type": "document", "source": "x"}], '{"type": "text"'),
    ],
)
def test_a_part_of_a_turn_is_named_as_what_it_is(bench, parts, fix):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": parts}]
    report = bench.compile_rows("messages", [{"messages": turns}])
    messages = [f"{problem.message} {problem.hint}" for problem in report.problems.errors]
    assert messages and all(fix in message for message in messages)
    others = {"reasoning_content", "write a picture", '{"type": "text"'} - {fix}
    assert not any(other in message for other in others for message in messages)


@pytest.mark.parametrize(
    ("role", "tag"), [("user", "user_tag"), ("function_call", "function_tag"), ("gpt", "assistant_tag")]
)
def test_a_role_without_its_tag_names_the_tag_to_write(role, tag):
    tags = {"role_tag": "role", "content_tag": "content", "assistant_tag": "bot"}
    entry = {"formatting": "sharegpt", "columns": {"messages": "m"}, "tags": tags}
    record = {"m": [{"role": role, "content": "q"}, {"role": "bot", "content": "a"}]}
    with pytest.raises(ContentError) as error:
        read_example(record, entry, "f:1")
    assert f'add "{tag}": "{role}" to `tags`' in str(error.value)


def test_objects_in_the_texts_of_a_jsonl_are_not_told_to_be_named_jsonl(bench):
    rows = [{"text": json.dumps({"a": f"It is number {number}.", "b": 1})} for number in range(30)]
    with pytest.raises(ContentError) as error:
        propose(bench.rows("t.jsonl", rows))
    assert "fromjson" in str(error.value) and "name it .jsonl" not in str(error.value)
    lines = "".join(f"{json.dumps({'a': f'It is {number}.'})}\n" for number in range(30))
    with pytest.raises(ContentError) as error:
        propose(bench.write("t.txt", lines))
    assert "name it .jsonl" in str(error.value)


EQUAL = {
    "all": [{"question": "What is it?", "answer": "It is this thing."}] * 60,
    "prompts": [{"question": "What is it?", "answer": f"It is thing {n}."} for n in range(60)],
    "conversations": [
        {"messages": [{"role": "user", "content": "q?"}, {"role": "assistant", "content": "This one."}]}
    ]
    * 60,
}


@pytest.mark.parametrize("name", ["all", "conversations"])
def test_init_proposes_no_split_of_rows_that_stay_on_one_side(bench, name):
    text, _, steps = propose(bench.rows("equal.jsonl", EQUAL[name]))
    assert "\nsplit:" not in text and "dataset=equal " in steps
    assert bench.compile(text).kept == 60


def test_a_split_that_leaves_train_empty_is_a_warning(bench):
    spec = """
about: a split
columns: {question: [question], answer: [answer]}
split: {eval: 0.1, group: question, seed: 42}
write:
  - {dataset: "s_{split}", file: "s_{split}.jsonl", format: alpaca, instruction: "{question}",
     output: "{answer}"}
"""
    report = bench.compile(spec, bench.rows("equal.jsonl", EQUAL["prompts"]))
    assert report.datasets == {"s_eval": 60} and report.problems.counts["W209"] == 1


@pytest.mark.parametrize("roles", [["user", "user", "assistant"], ["user", "assistant", "assistant"]])
def test_two_turns_of_one_side_in_a_row_are_to_be_joined(bench, roles):
    turns = [{"role": role, "content": "text"} for role in roles]
    (problem,) = bench.compile_rows("messages", [{"messages": turns}]).problems.errors
    assert problem.code == "E107" and "join both turns" in problem.message


@pytest.mark.parametrize("value", [3.0, 0.0, -7.0])
def test_an_id_with_a_fraction_of_zero_gets_its_whole_number(bench, value):
    (problem,) = bench.compile_rows("rte", [ROWS[0] | {"idx": value}]).problems.errors
    assert problem.code == "E105" and f"write it as {int(value)} " in problem.hint


def thread(lost: int) -> list[dict]:
    """Threads of three messages. The parents of the first `lost` answers are gone."""
    rows = []
    for number in range(60):
        parent = f"m{number - 1}" if number % 3 else None
        if number % 3 == 1 and number < 3 * lost:
            parent = f"gone {number}"
        role = "assistant" if number % 3 == 1 else "user"
        text = f"message number {number} is this one"
        rows.append({"id": f"m{number}", "parent_id": parent, "role": role, "text": text})
    return rows


@pytest.mark.parametrize("lost", [1, 8])
def test_a_thread_with_missing_parents_is_read(bench, lost):
    """init refused the whole file for one parent."""
    text, report, _ = propose(bench.rows("thread.jsonl", thread(lost)))
    assert f'{lost} of 40 values of parent_id name no row, such as "gone 1"' in report
    assert "turns: {id: id, parent: parent_id, role: role, text: text}" in text
    assert bench.compile(text, reject=True).kept == 20 - lost


def test_a_thread_with_most_parents_missing_is_refused_with_the_spec_that_reads_it(bench):
    questions_and_answers = [row for number, row in enumerate(thread(15)) if number % 3 < 2]
    with pytest.raises(ContentError) as error:
        propose(bench.rows("thread.jsonl", questions_and_answers))
    message = str(error.value)
    assert '15 of 20 values of parent_id name no row, such as "gone 1"' in message
    assert "{turns: {id: id, parent: parent_id, role: role, text: text}}" in message
