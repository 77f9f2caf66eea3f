"""What reading and listing print in Chinese: reasons that pass through an exception, lines put together."""

from pathlib import Path

import pytest

from tests.cli.scoring import invoke
from tuneyard.compiler.cli import cli as data


def printed(*words: object) -> str:
    result = invoke(data, *words, "--lang", "zh")
    return result.output


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("twice.csv", "question,question\na,b\n", "E009 question：表头里出现了两次"),
        ("cut.json", '[{"question": "a", "answer": "b"},', "E003：文件在逗号之后中断；此前有 1 条完整的记录"),
    ],
)
def test_a_file_that_cannot_be_read_has_its_reason_in_chinese(
    tmp_path: Path, name: str, text: str, reason: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert reason in printed("check", "qa", "--source", tmp_path / name)


def test_the_list_of_datasets_is_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = printed("list").splitlines()
    assert lines[0] == "dataset_info 中的数据集" and "规格" in lines


def test_a_proposal_is_chinese_and_its_rows_are_as_they_are(tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    rows.write_text("question,answer,serial\nspecs,none,1\n left out: a,datasets in b,2\n", encoding="utf-8")
    text = printed("init", rows)
    assert "  answer：none\n" in text or "  回答：none\n" in text
    assert "specs" in text and "datasets in b" in text and "left out: serial" not in text
