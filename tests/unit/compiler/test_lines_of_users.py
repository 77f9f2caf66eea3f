"""Texts of users that look like our own lines are printed as they are, also for a Chinese reader."""

import json

import pytest

from tuneyard.compiler.cli import cli
from tuneyard.compiler.verify.audit import Audit
from tuneyard.compiler.verify.report import lines
from tuneyard.core.language.messages import as_is, for_reader, relative_paths
from tuneyard.core.language.reader import in_language

OURS = ["result: 42", "3 rows", "next: x", "error: no such file", "warning: none", "interrupted; ok"]
"""Lines that are translated where they are ours, or whose parts are."""


@pytest.fixture
def chinese(monkeypatch):
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")


@pytest.fixture
def labelled(bench):
    """Two files of records, whose labels look like lines of ours, registered under such names."""
    for name, shift in (("a", 0), ("b", 1)):
        rows = []
        for number in range(24):
            label = OURS[(number + shift) % len(OURS)]
            rows.append({"instruction": f"Q{number}?\nresult: {number}", "input": "", "output": label})
        bench.write(f"data/{name}.json", json.dumps(rows))
    entries = {name: {"file_name": f"{name}.json"} for name in "ab"} | {"3 rows": {"file_name": "a.json"}}
    bench.write("data/dataset_info.json", json.dumps(entries))
    return bench.folder / "data"


@pytest.mark.usefixtures("chinese")
@pytest.mark.parametrize("text", OURS)
def test_every_command_on_data_prints_labels_as_they_are(here, labelled, text, monkeypatch):
    monkeypatch.chdir(labelled.parent)
    folder = ("--dataset-dir", labelled)
    shift = OURS[(OURS.index(text) + 1) % len(OURS)]
    printed = {
        "diff": here(cli, "diff", "a", "b", *folder, code=1).stdout,
        "stats": here(cli, "stats", "a", *folder).stdout,
        "show": here(cli, "show", "a", "--row", str(OURS.index(text) + 1)).stdout,
    }
    assert f"    {text}: 4 → 4\n" in printed["diff"]
    assert f"    {text} → {shift}" in printed["diff"] or f": {text} → {shift}" in printed["diff"]
    assert f"{text} 4 (16.7%)" in printed["stats"] and "标签" in printed["stats"]
    assert f'"output": "{text}"' in printed["show"]


@pytest.mark.usefixtures("chinese")
def test_the_list_has_the_names_of_datasets_as_they_are(here, labelled):
    assert "  3 rows  a.json  " in here(cli, "list", "--out", labelled).stdout


@pytest.mark.usefixtures("chinese")
@pytest.mark.parametrize("text", OURS)
def test_init_prints_its_examples_and_columns_as_they_are(here, bench, text):
    rows = []
    for number in range(24):
        question, answer = f"What is it, number {number}?\n{text}", f"It is {number}.\n{text}"
        rows.append({"question": question, "answer": answer, text: number})
    done = here(cli, "init", bench.rows("train.jsonl", rows), "--out", bench.folder / "s.yaml")
    assert done.stderr.count(f"\n    {text}\n") == 6 and f"：{text}\n" in done.stderr


@pytest.mark.usefixtures("chinese")
@pytest.mark.parametrize("text", OURS)
def test_a_refused_label_is_printed_as_it_is(here, bench, text):
    rows = [{"sentence1": "a", "sentence2": "b", "label": text, "idx": 0}]
    done = here(cli, "check", "rte", "--source", bench.rows("train.jsonl", rows), code=1)
    assert f'"{text}"' in done.stderr and "应为" in done.stderr


@pytest.mark.parametrize("text", OURS)
def test_the_loss_tokens_of_verify_are_printed_as_they_are(text, make_verdict):
    verdict = make_verdict([(f"Q\n{text}\n", False), (f"{text}\nA\n{text}", True)])
    with in_language("zh"):
        printed = for_reader("\n".join(lines(verdict, every=False)))
    assert f"Q\n{text}\n⟦{text}\nA\n{text}⟧" in printed and "损失" in printed


@pytest.fixture
def make_verdict():
    from tuneyard.compiler.verify.verdict import Verdict

    def make(example: list[tuple[str, bool]]) -> Verdict:
        audit = Audit()
        audit.rows, audit.seen, audit.learned, audit.example = 1, 10, 4, example
        audit.lengths[10] = 1
        verdict = Verdict("d")
        verdict.audit = audit
        return verdict

    return make


@pytest.mark.parametrize("text", [*OURS, "", "中文", "{field}", 'a "quote', "\ufdd0", "a\ufdd10\ufdd1"])
def test_a_marked_text_is_printed_as_it_is_in_each_language(text):
    printed_text = text.replace("\ufdd0", "\ufffd").replace("\ufdd1", "\ufffd")
    assert for_reader(f"result: {as_is(text)}") == f"result: {printed_text}"
    with in_language("zh"):
        assert for_reader(f"result: {as_is(text)}") == f"结果：{printed_text}"
        assert for_reader(as_is(text)) == printed_text


def test_paths_in_a_marked_text_stay(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert for_reader(relative_paths(f"{tmp_path}/a: {as_is(f'{tmp_path}/b')}")) == f"a: {tmp_path}/b"


@pytest.mark.parametrize("text", ["\ufdd0", "\ufdd1\ufdd0", "\ufdd05\ufdd1", "\ufdd0\ufdd00\ufdd1\ufdd1"])
def test_a_text_with_marks_of_its_own_ends(text):
    with in_language("zh"):
        line = for_reader(f'result: "{text}"')
    assert line.startswith("结果：")


def test_a_quoted_value_is_no_line_of_ours():
    with in_language("zh"):
        assert for_reader('a.jsonl:3: E104 label: found "3 rows", expected one of yes, no') == (
            'a.jsonl:3：E104 label：为 "3 rows"，应为 yes, no 之一'
        )


@pytest.mark.parametrize("name", ["none", "ok", "error", "text", "3 rows", "result: 42"])
def test_a_name_inside_a_line_of_ours_is_printed_as_it_is(name):
    """Adapters, models and columns may be called as words of ours are."""
    bases = (
        f"error: different base models: a was trained on b, {name} on {name}; if both are the same model, "
    )
    bases += "give it as --base DIR, which decides (with --same-base if one is not here)"
    with in_language("zh"):
        assert f"b 上训练，{name} 在 {name} 上训练" in for_reader(bases)


@pytest.mark.parametrize("name", ["none", "ok", "error", "text", "3 rows"])
def test_a_name_at_the_beginning_of_a_line_is_printed_as_it_is(name):
    with in_language("zh"):
        assert (
            for_reader(f"warning: {name} is used as the input of question")
            == f"警告：{name} 用作 question 的输入"
        )
