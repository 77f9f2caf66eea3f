"""Texts of users that look like our own lines are printed as they are, also for a Chinese reader."""

import json

import pytest

from tuneyard.compiler.cli import cli
from tuneyard.compiler.verify.audit import Audit
from tuneyard.compiler.verify.report import lines
from tuneyard.core.language.message import translated
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
    assert f"    {text}：4 → 4\n" in printed["diff"]
    assert f"    {text} → {shift}：" in printed["diff"]
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
        printed = "\n".join(map(translated, lines(verdict, every=False)))
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
