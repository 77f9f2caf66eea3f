"""Preference pairs and KTO marks: what is recorded, what LLaMA-Factory's entry says, what is refused."""

import json

import pytest

from compiler.entries import entries_of
from compiler.pipeline import compile_spec
from compiler.request import CompileRequest
from compiler.spec import load_spec
from compiler.verify.entry import entry_problems, meaning_of
from compiler.verify.expect import expected_row
from core.errors import ContentError
from tests.conftest import REAL

ASK = [{"role": "user", "content": "2+2?"}]


def compiled(folder, rows, name="kto", over=None, limit=None):
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec = load_spec(name, over)
    report = compile_spec(
        spec, CompileRequest(sources=(str(source),), out=folder / "out", force=True, limit=limit)
    )
    files = [folder / "out" / spec.name / output.file for output in spec.outputs]
    return report, [json.loads(file.read_text()) for file in files if file.exists()]


def answer(text):
    return [*ASK, {"role": "assistant", "content": text}]


@pytest.mark.parametrize("name", ["pairs", "pairs-chat", "kto"])
def test_the_entry_is_what_llamafactory_asks_for(name):
    spec = load_spec(name)
    (entry,) = entries_of(spec, ["train"]).values()
    assert list(entry_problems("here", entry, meaning_of(entry))) == []
    assert entry.get("ranking") is (None if name == "kto" else True)
    beside = {"kto_tag"} if name == "kto" else {"chosen", "rejected"}
    assert beside <= entry["columns"].keys() and "response" not in entry["columns"]
    assert meaning_of(entry).stage == ("kto" if name == "kto" else "rm")


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
    assert report.failed and "all 3 answers are wanted" in report.problems.errors[0].line()
    rows.append({"messages": answer("d"), "label": False})
    assert not compiled(tmp_path, rows, limit=2)[0].failed
    assert not compiled(tmp_path, rows)[0].failed


def test_the_prompt_can_stand_before_the_chosen_answer(tmp_path):
    rows = [{"prompt": "2+2?", "chosen": answer("4"), "rejected": answer("5")}]
    report, _ = compiled(tmp_path, rows, "pairs-chat")
    assert "expected a list of turns" in report.problems.errors[0].line()
    _, (records,) = compiled(tmp_path, rows, "pairs-chat", {"columns": {"turns": {"names": ["chosen"]}}})
    assert records[0]["conversations"] == [{"from": "human", "value": "2+2?"}]
    assert (records[0]["chosen"]["value"], records[0]["rejected"]["value"]) == ("4", "5")


def test_what_llamafactory_should_read_of_a_record():
    (entry,) = entries_of(load_spec("pairs"), ["train"]).values()
    record = {"instruction": "a", "input": "b", "chosen": "c", "rejected": "d"}
    turns = expected_row(record, meaning_of(entry)).turns
    assert turns == [("user", "a\nb"), ("assistant", "c"), ("assistant", "d")]
    (entry,) = entries_of(load_spec("kto"), ["train"]).values()
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    for mark, told in ((True, ["a", "b", ""]), (False, ["a", "", "b"])):
        row = expected_row({"conversations": talk, "kto_tag": mark}, meaning_of(entry))
        assert [text for _, text in row.turns] == told


@pytest.mark.parametrize(
    ("write", "said"),
    [
        ('format: alpaca, instruction: "{q}", output: "{c}"', "in place of `output` and `assistant`"),
        ('format: text, text: "{q}"', "column c: neither a mixture nor a text for pretraining holds chosen"),
    ],
)
def test_an_output_that_cannot_hold_pairs_is_refused(tmp_path, write, said):
    columns = "{q: [q], c: {names: [c], is: chosen}, r: {names: [r], is: rejected}}"
    (tmp_path / "x.yaml").write_text(
        f"about: x\ncolumns: {columns}\nwrite: [{{dataset: x, file: x.json, {write}}}]"
    )
    with pytest.raises(ContentError, match=said):
        load_spec(str(tmp_path / "x.yaml"))
    (tmp_path / "y.yaml").write_text(f"about: x\ncolumns: {columns.split(', r:')[0]}}}\nwrite: [{{dataset: x, file: x.json, format: alpaca}}]")  # fmt: skip # noqa: E501
    with pytest.raises(ContentError, match="expected a column of each"):
        load_spec(str(tmp_path / "y.yaml"))


@pytest.mark.parametrize(
    ("spec", "name"), [("pairs-chat", "dpo_en_demo"), ("pairs-chat", "dpo_zh_demo"), ("kto", "kto_en_demo")]
)
def test_llamafactorys_own_demo_files(spec, name, tmp_path):
    source = REAL / "lf/data" / f"{name}.json"
    if not source.is_file():
        pytest.skip(f"no real data at {REAL}")
    report = compile_spec(load_spec(spec), CompileRequest(sources=(str(source),), out=tmp_path))
    assert (report.read, report.kept, report.problems.count("E")) == (300, 300, 0)


def test_one_answer_marked_both_ways_is_a_conflict_and_no_row_that_came_before(tmp_path):
    rows = [{"messages": answer("4"), "kto_tag": mark} for mark in (True, False)]
    report, (records,) = compiled(tmp_path, rows, over={"drop_duplicates": True})
    assert len(records) == 2
    assert report.problems.counts["W203"] == 1 and not report.problems.counts["W202"]
