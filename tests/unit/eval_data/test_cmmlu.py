"""CMMLU: its table, files whole and broken, the prompt to the letter, and a hub that a local server plays."""

from collections import Counter
from pathlib import Path

import pytest

from tests.exams import HEAD, ROW, write_exam
from tests.hub_server import hub_of
from tests.messages import raises
from tests.real_data import real_path
from tests.unit.compiler.conftest import as_parquet
from tuneyard.core.datasets.trained_examples import fingerprints_of
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.files import sha256
from tuneyard.eval.cmmlu.subjects import REVISION, choose_subjects, fetch, in_groups, read_exam, read_subjects

LOGICAL = ("logical", "逻辑学")


TOOLKIT = "toolkit: "


def test_there_are_67_subjects_and_the_fifth_group_crosses_the_others() -> None:
    subjects = read_subjects()
    groups = {name: names for name, names in in_groups(subjects).items() if not name.startswith(TOOLKIT)}
    sizes = {"STEM": 17, "Humanities": 13, "Social Science": 22, "Other": 15, "China specific": 15}
    assert {name: len(members) for name, members in groups.items()} == sizes
    assert len(subjects) == len(set(subjects.values())) == 67
    of_subjects = Counter(name for members in groups.values() for name in members)
    assert Counter(of_subjects.values()) == {1: 52, 2: 15}
    groups_of_history = ["Humanities", "China specific", "toolkit: humanities and social sciences"]
    assert list(in_groups(["chinese_history"])) == groups_of_history
    assert in_groups(["virology"]) == {"STEM": ["virology"], "toolkit: natural sciences": ["virology"]}


def test_every_subject_is_in_one_of_the_toolkits_four_groups_with_its_examples() -> None:
    subjects = read_subjects()
    groups = {name: names for name, names in in_groups(subjects).items() if name.startswith(TOOLKIT)}
    examples = {  # of the toolkit's page
        "humanities and social sciences": ["chinese_history", "chinese_literature", "philosophy"],
        "natural sciences": [
            "college_mathematics", "conceptual_physics", "high_school_chemistry", "high_school_biology"
        ],
        "engineering": ["computer_science", "electrical_engineering"],
        "medicine and law": ["clinical_knowledge", "college_law", "professional_law"],
    }  # fmt: skip
    assert [name.removeprefix(TOOLKIT) for name in groups] == list(examples)
    for name, names in examples.items():
        assert {*names} <= {*groups[TOOLKIT + name]}
    assert [len(names) for names in groups.values()] == [32, 13, 8, 14]
    assert Counter(name for names in groups.values() for name in names) == Counter(list(subjects))


def test_the_prompt_is_the_benchmarks(tmp_path) -> None:
    dev = HEAD + "0,他,甲,乙,丙,丁,A\n" + ROW
    exam = read_exam(write_exam(tmp_path, dev=dev), *LOGICAL, 2)
    question = "题目：1+1=?\nA. 1\nB. 2\nC. 3\nD. 4\n答案是："
    assert exam.conversations[0].messages[0]["content"] == (
        "以下是关于逻辑学的单项选择题，请直接给出正确答案的选项。\n\n"
        f"题目：他\nA. 甲\nB. 乙\nC. 丙\nD. 丁\n答案是：A\n\n{question}B\n\n{question}"
    )
    assert (exam.answers, exam.records) == (["B"], [{"instruction": question}])


def test_without_shots_the_dev_file_is_not_needed(tmp_path):
    (write_exam(tmp_path) / "dev/logical.csv").unlink()
    exam = read_exam(tmp_path, *LOGICAL, 0)
    assert exam.digest == sha256(exam.path)
    with raises(RequestError, "dev/logical.csv"):
        read_exam(tmp_path, *LOGICAL, 5)


@pytest.mark.parametrize(
    ("test", "facts"),
    [
        (HEAD, "logical.csv"),
        ("", "logical.csv"),
        (HEAD + ROW + "1,Q,1,2,3,4,E\n", "E; logical.csv:3"),
        (HEAD + "0,Q,1,2,3,4\n", "logical.csv:2"),
        ("Question,A,B,C,Answer\nQ,1,2,3,A\n", "logical.csv:2"),
        (HEAD + '0,"Q\nstill Q,1,2,3,4,A\n', "logical.csv:3; CSV"),
        (HEAD.encode() + "0,问,1,2,3,4,A\n".encode("gb18030"), "logical.csv; UTF-8"),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, test, facts) -> None:
    with raises(ContentError, facts):
        read_exam(write_exam(tmp_path, test=test), *LOGICAL, 0)


def test_texts_that_look_like_numbers_or_nothing_stay_texts(tmp_path) -> None:
    exam = read_exam(write_exam(tmp_path, test="\ufeff" + HEAD + "0,NA,01,1.0,null,,A\n"), *LOGICAL, 0)
    assert exam.records[0]["instruction"] == "题目：NA\nA. 01\nB. 1.0\nC. null\nD. \n答案是："


def test_too_few_examples(tmp_path) -> None:
    with raises(RequestError, "dev/logical.csv", "1", "--shots 5"):
        read_exam(write_exam(tmp_path, dev=HEAD + ROW), *LOGICAL, 5)


def test_subjects_are_those_named_or_those_that_are_there(tmp_path) -> None:
    write_exam(tmp_path, "virology")
    write_exam(tmp_path, "not_a_subject")
    assert list(choose_subjects(None, tmp_path)) == ["virology"]
    assert list(choose_subjects("logical, anatomy,logical", tmp_path)) == ["logical", "anatomy"]
    assert len(choose_subjects(None, None)) == 67
    with raises(RequestError, "anatomie", "anatomy"):
        choose_subjects("anatomie", tmp_path)
    with raises(RequestError, "test/SUBJECT.csv"):
        choose_subjects(None, tmp_path / "dev")
    with raises(RequestError):
        choose_subjects(" ,", tmp_path)


def test_real_subjects_are_read() -> None:
    folder = real_path("cmmlu")
    subjects = choose_subjects(None, folder)
    exams = [read_exam(folder, *subject, 5) for subject in subjects.items()]
    assert len(exams) == 10 and sum(len(exam.records) for exam in exams) == 1977
    assert {row.messages[0]["content"].count("答案是：") for row in exams[0].conversations} == {6}


READ = (
    "from tuneyard.eval.cmmlu.subjects import *;"
    "e = read_exam(fetch('haonan-li/cmmlu', ['logical']), 'logical', '逻辑学', 5);"
    "print(len(e.records), e.conversations[0].question.count('答案是：'), e.path.name)"
)


def test_the_hubs_files_are_fetched_as_far_as_needed(run, tmp_path) -> None:
    row = {"A": "1", "B": "2", "C": "3", "D": "4", "Answer": "B"}
    parts = ("logical/dev", "logical/test", "virology/dev", "virology/test")
    files = {f"{part}/0000.parquet": as_parquet([{**row, "Question": part}] * 5) for part in parts}
    with hub_of({"haonan-li/cmmlu": {REVISION: files}}, tmp_path / "home") as hub:
        assert run("-c", READ, env=hub.env).stdout.split() == ["5", "6", "0000.parquet"]
    assert sorted(hub.sent) == ["logical/dev/0000.parquet", "logical/test/0000.parquet"]


def test_offline_both_ways_out_are_named(monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for repo in ("haonan-li/cmmlu", "no/such/folder"):
        with raises(RequestError, "--data", repo, "dev/", "HF_ENDPOINT"):
            fetch(repo, ["logical"])


def test_a_damaged_parquet_file(tmp_path):
    (tmp_path / "logical/test").mkdir(parents=True)
    (tmp_path / "logical/test/0000.parquet").write_bytes(b"PAR1 no")
    with raises(ContentError, "0000.parquet"):
        read_exam(tmp_path, *LOGICAL, 0)


def test_a_benchmarks_question_is_known_from_training_with_examples_before_it(tmp_path: Path) -> None:
    few, none = (read_exam(write_exam(tmp_path), *LOGICAL, shots) for shots in (5, 0))
    assert few.conversations[0].messages != none.conversations[0].messages
    assert few.origin.fingerprints.tolist() == none.origin.fingerprints.tolist()
    (question,) = (few.records[0]["instruction"],)
    alone = few.conversations[0]._replace(messages=[{"role": "user", "content": question}])
    assert few.origin.fingerprints[:1].tolist() == fingerprints_of([alone]).tolist()
