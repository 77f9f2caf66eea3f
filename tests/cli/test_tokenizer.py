"""--tokenizer jieba: ROUGE and BLEU by the words of an optional package, which is named where it is used."""

import importlib.util
import sys
from pathlib import Path
from statistics import fmean

import pytest

from tests.cli import scoring
from tests.json_files import read_json, read_lines, write_json, write_lines
from tests.messages import raises
from tuneyard.core.errors import RequestError
from tuneyard.eval.figures.text import JIEBA, bleu, bleu_parts, jieba_words, rouge
from tuneyard.eval.runs.find import read_scored_run
from tuneyard.eval.text import cli

REFERENCE, ANSWER = "我们在北京大学学习，很好。", "他们在北京大学工作。"
ROWS = [{"instruction": f"任务 {n}", "output": REFERENCE} for n in range(3)]
has_jieba = pytest.mark.skipif(
    importlib.util.find_spec(JIEBA) is None, reason="the optional package jieba is not installed"
)


@pytest.fixture
def text(score, tmp_path: Path):
    """`text("--rouge")` runs the command with the tiny model and returns the folder of its results."""
    write_json(tmp_path / "rows.json", ROWS)

    def call(*arguments: object, **changes: object) -> Path:
        given = ["--data", tmp_path / "rows.json", "--max-new-tokens", 8]
        return score(cli, *given, *arguments, **changes) / "base/rows"

    return call


@has_jieba
def test_words_are_jiebas_without_punctuation() -> None:
    assert jieba_words(REFERENCE) == ["我们", "在", "北京大学", "学习", "很", "好"]
    assert jieba_words("LoRA 很好") == ["lora", "很", "好"]


@has_jieba
def test_rouge_and_bleu_count_words_and_not_characters() -> None:
    """2 of 6 and of 4 words are shared: 2 · (2/4)(2/6) / (2/4 + 2/6) = 0.4."""
    assert jieba_words(ANSWER) == ["他们", "在", "北京大学", "工作"]
    assert rouge([REFERENCE], [ANSWER], JIEBA)["rouge1"] == [pytest.approx(0.4)]
    assert rouge([REFERENCE], [ANSWER])["rouge1"] != [pytest.approx(0.4)]
    same, signature = bleu([REFERENCE] * 2, [REFERENCE] * 2, tokenizer=JIEBA)
    assert same.value == pytest.approx(100) and "tok:none" in signature
    other, _ = bleu([REFERENCE] * 2, [ANSWER, REFERENCE], tokenizer=JIEBA)
    assert fmean(bleu_parts([REFERENCE] * 2, [ANSWER, REFERENCE], JIEBA)) == pytest.approx(other.value)


@has_jieba
def test_results_and_screen_name_the_tokenizer_and_a_comparison_uses_it(text, tmp_path, capsys) -> None:
    folder = text("--rouge")
    found = read_json(folder / "results.json")
    assert found["tokenizer"] == found["settings"]["tokenizer"] == "characters"
    assert "(by characters)" in capsys.readouterr().out
    rows = read_lines(folder / "predictions.jsonl")
    rows = [{**row, "prediction": ANSWER} for row in rows]
    write_lines(folder / "predictions.jsonl", rows)
    out = tmp_path / "again"
    arguments = ["--rescore", tmp_path / "out", "--rouge", "--tokenizer", "jieba", "--out", out]
    scoring.call(cli, *arguments, "--data", tmp_path / "rows.json")
    again = read_json(out / "base/rows/results.json")
    assert again["tokenizer"].startswith("jieba 0") and again["rouge1"] == pytest.approx(0.4)
    assert "(by jieba 0" in capsys.readouterr().out
    scored = read_scored_run(out / "base/rows", "rouge1")
    assert scored.column("rouge1") == [pytest.approx(0.4)] * 3


def test_without_the_package_the_message_has_the_install_line(text, monkeypatch, tmp_path) -> None:
    monkeypatch.setitem(sys.modules, "jieba", None)
    with pytest.raises(RequestError, match=r"jieba is not installed .* install .*jieba$"):  # by uv or pip
        text("--rouge", "--tokenizer", "jieba")
    assert not (tmp_path / "out").exists()


def test_it_is_refused_where_nothing_is_compared(text) -> None:
    with raises(RequestError, "--tokenizer", "ROUGE", "BLEU", "--rouge"):
        text("--tokenizer", "jieba")
