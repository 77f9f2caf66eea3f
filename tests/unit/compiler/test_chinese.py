"""What reading and listing print in Chinese: reasons that pass through an exception, lines put together."""

import re
from pathlib import Path

import pytest

from tests.cli.scoring import invoke
from tuneyard.compiler.cli import cli as data

HAN = re.compile("[\u4e00-\u9fff]")


def printed(*words: object) -> str:
    result = invoke(data, *words, "--lang", "zh")
    return result.output


@pytest.mark.parametrize(
    ("name", "text", "code", "english"),
    [
        ("twice.csv", "question,question\na,b\n", "E009", "names it twice"),
        ("cut.json", '[{"question": "a", "answer": "b"},', "E003", "came before"),
    ],
)
def test_a_file_that_cannot_be_read_has_its_reason_in_chinese(
    tmp_path: Path, name: str, text: str, code: str, english: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    lines = printed("check", "qa", "--source", tmp_path / name).splitlines()
    (problem,) = [line for line in lines if f"：{code}" in line]
    assert english not in problem and HAN.search(problem.partition(code)[2])


def test_the_list_of_datasets_is_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = printed("list").splitlines()
    assert HAN.search(lines[0]) and "datasets in" not in lines[0] and "specs" not in lines


def test_a_proposal_is_chinese_and_its_rows_are_as_they_are(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("question,answer,serial\nspecs,none,1\n left out: a,datasets in b,2\n", encoding="utf-8")
    text = printed("init", rows)
    assert "：none\n" in text and "specs" in text and "datasets in b" in text  # values of the file
    assert "left out: serial" not in text
