"""Preference pairs and KTO marks: what is recorded, what LLaMA-Factory's entry says, what is refused."""

import pytest

from tests.json_files import read_json, write_lines
from tests.messages import printed, raises
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import compile_dataset
from tuneyard.compiler.read.dataset_reader import stored_examples
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.verify.expect import entry_problems
from tuneyard.compiler.write.entries import entries_of
from tuneyard.core.errors import ContentError
from tuneyard.core.llamafactory.stages import rows_of
from tuneyard.core.records import ChatMessage, format_of_entry, read_example

ASK = [{"role": "user", "content": "2+2?"}]


def compiled(folder, rows, name="kto", over=None, limit=None):
    source = folder / "rows.jsonl"
    write_lines(source, rows)
    spec = load_spec(name, over)
    report = compile_dataset(
        CompileRequest(spec, sources=(str(source),), out=folder / "out", force=True, limit=limit)
    )
    files = [folder / "out" / spec.name / output.file for output in spec.outputs]
    return report, [read_json(file) for file in files if file.exists()]


def answer(text):
    return [*ASK, {"role": "assistant", "content": text}]


@pytest.mark.parametrize("name", ["pairs", "pairs-chat", "kto"])
def test_the_entry_is_what_llamafactory_asks_for(name):
    spec = load_spec(name)
    (entry,) = entries_of(spec).values()
    assert list(entry_problems("here", entry, format_of_entry(entry))) == []
    assert entry.get("ranking") is (None if name == "kto" else True)
    beside = {"kto_tag"} if name == "kto" else {"chosen", "rejected"}
    assert beside <= entry["columns"].keys() and "response" not in entry["columns"]
    assert rows_of(entry).stage == ("kto" if name == "kto" else "rm")


def test_ratings_become_marks_by_the_rule_in_the_spec(tmp_path):
    over = {"columns": {"kto_tag": {"names": ["score"], "is": "kto", "at_least": 4}}}
    rows = [{"messages": answer(str(score)), "score": score} for score in (1, 3.9, 4, 5)]
    report, (records,) = compiled(tmp_path, rows, over=over)
    assert [record["kto_tag"] for record in records] == [False, False, True, True]
    assert report.problems.counts["W203"] == 3
    report, _ = compiled(tmp_path, [*rows, {"messages": answer("x"), "score": True}], over=over)
    assert "expected a number" in report.problems.errors[0].line()


def test_one_class_is_an_error_but_not_of_a_few_rows_that_were_asked_for(tmp_path):
    rows = [{"messages": answer(text), "label": True} for text in "abc"]
    report, _ = compiled(tmp_path, rows)
    assert report.failed and "all 3 answers are desirable" in report.problems.errors[0].line()
    rows.append({"messages": answer("d"), "label": False})
    assert not compiled(tmp_path, rows, limit=2)[0].failed
    report, _ = compiled(tmp_path, rows)
    (balance,) = [note for note in report.problems.notes if "to 1" in note]
    printed(balance, "rows.jsonl", "3", "1", "3.00 to 1")
    assert not compiled(tmp_path, rows)[0].failed


def test_the_prompt_can_stand_before_the_chosen_answer(tmp_path):
    rows = [{"prompt": "2+2?", "chosen": answer("4"), "rejected": answer("5")}]
    report, _ = compiled(tmp_path, rows, "pairs-chat")
    assert "expected a list of turns" in report.problems.errors[0].line()
    _, (records,) = compiled(tmp_path, rows, "pairs-chat", {"columns": {"turns": {"names": ["chosen"]}}})
    assert records[0]["conversations"] == [{"from": "human", "value": "2+2?"}]
    assert (records[0]["chosen"]["value"], records[0]["rejected"]["value"]) == ("4", "5")


def test_what_llamafactory_should_read_of_a_record():
    (entry,) = entries_of(load_spec("pairs")).values()
    record = {"instruction": "a", "input": "b", "chosen": "c", "rejected": "d"}
    messages = read_example(record, entry, "here").trained_messages
    assert messages == [
        ChatMessage("user", "a\nb"),
        ChatMessage("assistant", "c"),
        ChatMessage("assistant", "d"),
    ]


@pytest.mark.parametrize(
    ("columns", "write"),
    [
        ("c: CHOSEN, r: REJECTED", 'alpaca, instruction: "{q}", output: "{c}"'),
        ("c: CHOSEN, r: REJECTED", 'text, text: "{q}"'),
        ("c: CHOSEN", 'alpaca, instruction: "{q}"'),
    ],
)
def test_an_output_that_cannot_hold_pairs_and_half_a_pair_are_refused(tmp_path, columns, write):
    for name in ("chosen", "rejected"):
        columns = columns.replace(name.upper(), f"{{names: [{name}], is: {name}}}")
    output = f"write: [{{dataset: x, file: x.json, format: {write}}}]\n"
    (tmp_path / "x.yaml").write_text(f"about: x\ncolumns: {{q: [q], {columns}}}\n{output}")
    with raises(ContentError, "chosen"):
        load_spec(str(tmp_path / "x.yaml"))


def test_one_answer_marked_both_ways_is_a_conflict_and_no_row_that_came_before(tmp_path):
    rows = [{"messages": answer("4"), "kto_tag": mark} for mark in (True, False)]
    report, (records,) = compiled(tmp_path, rows, over={"drop_duplicates": True})
    assert len(records) == 2
    assert report.problems.counts["W203"] == 1 and not report.problems.counts["W202"]


def dialogue(*said):
    return "".join(f"\n\n{('Human', 'Assistant')[n % 2]}: {text}" for n, text in enumerate(said))


def test_dialogues_as_one_text_are_turns(tmp_path):
    rows = [
        {"chosen": dialogue("a\n\nb", "c", "d", "e"), "rejected": dialogue("a\n\nb", "c", "d", "Human: f")},
        {"chosen": dialogue("a", "b"), "rejected": dialogue("x", "c")},
        {"chosen": dialogue("a", "b") + "\n\nAssistant: c", "rejected": dialogue("a", "b")},
        {"chosen": answer("a")[1:], "rejected": answer("b")[1:]},
    ]
    over = {"columns": {"turns": {"names": ["chosen"], "is": "turns"}}}
    report, (records,) = compiled(tmp_path, rows[:1], "pairs-chat", over)
    turns = [("human", "a\n\nb"), ("gpt", "c"), ("human", "d")]
    assert records == [
        {
            "conversations": [{"from": who, "value": said} for who, said in turns],
            "system": "",
            "chosen": {"from": "gpt", "value": "e"},
            "rejected": {"from": "gpt", "value": "Human: f"},
        }
    ]
    report, _ = compiled(tmp_path, rows, "pairs-chat", over)
    said = [problem.line() for problem in report.problems.errors]
    assert len(said) == 3 and "do not answer the same prompt" in said[0] and "jsonl:3: E107" in said[1]
    assert "found no question" in said[2]


def test_a_text_that_only_begins_as_a_dialogue_stays_a_text(tmp_path):
    row = {"prompt": "Who speaks?", "chosen": "Human: it says.", "rejected": "Nobody."}
    _, (records,) = compiled(tmp_path, [row], "pairs")
    assert records[0]["chosen"] == "Human: it says."


RATED = {"by": "score", "take": "text"}
FROM_RATINGS = {
    "columns": {kind: {"names": ["answers"], "is": kind, "best": RATED} for kind in ("chosen", "rejected")}
}


def rated(*answers):
    return {"prompt": "2+2?", "answers": [{"score": score, "text": text} for score, text in answers]}


def test_the_best_and_the_worst_of_rated_answers_are_a_pair(tmp_path):
    _, (records,) = compiled(tmp_path, [rated((2, "5"), (9.5, "4"), (2, "6"))], "pairs", FROM_RATINGS)
    assert [(record["chosen"], record["rejected"]) for record in records] == [("4", "5")]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        (rated((3, "a"), (3, "b")), "score is 3 for all of 2 answers: none is preferred"),
        (rated((3, "a")), "score is 3 for all of 1 answers"),
        (rated((3, "a"), (True, "b")), "item 2: found"),
        ({"prompt": "q", "answers": "4"}, "expected a number 'score' and a text 'text'"),
        (rated((3, "a"), (1, " ")), "has no text"),
    ],
)
def test_ratings_that_make_no_pair_are_named(tmp_path, row, says):
    report, _ = compiled(tmp_path, [row], "pairs", FROM_RATINGS)
    assert says in report.problems.errors[0].line()


def test_a_tie_of_two_answers_is_dropped_and_counted(tmp_path):
    row = {"prompt": "2+2?", "response_0": "4", "response_1": "Four."}
    rows = [row | {"better_response_id": better} for better in (1, "tie", "Tie (both bad)")]
    report, ((record,),) = compiled(tmp_path, rows, "pairs")
    assert (record["chosen"], record["rejected"]) == ("Four.", "4")
    assert (report.read, report.kept, report.dropped) == (3, 1, {"tie": 2})


def test_answers_of_a_pair_are_cleaned_as_their_prompt_is(tmp_path):
    said = [{"role": "user", "content": " 2+2? "}]
    row = {"prompt": said, "chosen": [*said, {"role": "assistant", "content": " 4 "}],
           "rejected": [*said, {"role": "assistant", "content": " 5 "}]}  # fmt: skip
    report, ((record,),) = compiled(tmp_path, [row], "pairs-chat", over={"clean": "strip"})
    assert not report.problems.errors
    assert record["conversations"] == [{"from": "human", "value": "2+2?"}]
    assert (record["chosen"]["value"], record["rejected"]["value"]) == ("4", "5")


def test_a_call_at_the_end_of_a_pair_is_not_made_plain_text(tmp_path):
    calls = [{"function": {"name": "f", "arguments": {"a": n}}} for n in (1, 2)]
    chosen, rejected = ([*ASK, {"role": "assistant", "tool_calls": [call]}] for call in calls)
    report, records = compiled(
        tmp_path, [{"prompt": ASK, "chosen": chosen, "rejected": rejected}], "pairs-chat"
    )
    assert {problem.code for problem in report.problems.errors} == {"E111"} and not records


@pytest.mark.parametrize("name", ["pairs", "pairs-chat"])
def test_of_stored_pairs_the_prompt_is_asked_and_the_chosen_text_is_answered(tmp_path, name):
    prompt = ASK if name == "pairs-chat" else "2+2?"
    compiled(tmp_path, [{"prompt": prompt, "chosen": "four", "rejected": "5"}], name)
    file = next((tmp_path / "out").glob("*/pairs*.json"))
    for read in (name.replace("-", "_"), str(file)):
        (examples,) = stored_examples(read, tmp_path / "out")
        assert (examples.prompts(), examples.answers()) == (["2+2?"], ["four"])
        assert examples.examples[0].answers[1] == ChatMessage("assistant", "5")
