"""Each filter decides at its threshold as it says, and one step beside it the other way."""

import pytest

from tuneyard.compiler.check.filters import RowFilter, language_of
from tuneyard.compiler.rows import Batch, Prefix
from tuneyard.compiler.rows.counts import Counts
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.spec.model import Filter

QA = "{dataset: t, file: t.jsonl, format: alpaca, instruction: '{q}', output: '{a}'}"
SPEC = f"about: a\ncolumns: {{q: [q], a: {{names: [a], is: answer}}}}\nwrite: [{QA}]\n"


def test_lengths_of_a_filter_are_inclusive(bench):
    rows = [{"q": "q" * size, "a": "a"} for size in range(1, 9)]
    spec = bench.write("t.yaml", SPEC + "filter: {min: 6, max: 8}\n")  # both texts and the break between them
    report = bench.compile_rows(spec, rows)
    assert [len(record["instruction"]) for record in bench.records("t.jsonl")] == [4, 5, 6]
    assert report.dropped == {"too short": 3, "too long": 2}


def test_a_filter_without_a_least_length_keeps_an_empty_answer(bench):
    sheet = SPEC.replace("q: [q], ", "").replace("'{q}'", "Say something.") + "filter: {max: 5}\n"
    report = bench.compile_rows(sheet, [{"a": ""}])
    assert (report.kept, report.dropped) == (1, {})


@pytest.mark.parametrize(
    ("language", "text", "spoken"),
    [
        ("zh", "苹果好 abcdefg!", True),
        ("zh", "苹果 abcdefgh", False),
        ("zh", "123 !?", False),
        ("zh", "\u3400\u4dbf豈", True),
        ("zh", "\u4dc0\u4dff ひら", False),
        ("zh", "…", False),
        ("en", "abcdefghi 苹 123", True),
        ("en", "abcdefgh 苹果", False),
        ("en", "123 !?", False),
        ("en", "AZaz", True),
        ("en", "a", True),
        ("zh", "苹", True),
    ],
)
def test_a_language_is_told_by_its_share_of_letters(language, text, spoken):
    assert (language_of(text) == language) == spoken


@pytest.mark.parametrize(
    ("keyword", "text", "found"),
    [
        ("cat", "A CAT!", True),
        ("cat", "concat", False),
        ("cat", "cats", False),
        ("cat", "cat2", False),
        ("cat", "猫cat猫", True),
        ("苹果", "吃苹果吧abc", True),
        ("苹果", "x苹果y", True),
        ("C语言", "学C语言吧", True),
        ("C语言", "ABC语言", False),
        ("用C", "用C吧", True),
        ("用C", "用C2", False),
        ("a.c", "abc", False),
    ],
)
def test_keywords_are_whole_words_where_words_have_spaces(keyword, text, found):
    row_filter = RowFilter(load_spec("text")._replace(filter=Filter(keywords=(keyword,))), Counts())
    assert len(row_filter.kept(Batch(Prefix("t"), [1], {"text": [text]}))) == found
    assert row_filter.counts.dropped == ({} if found else {"no keyword": 1})


def test_a_row_without_an_answer_is_dropped_and_counted(bench):
    """Blanks and case of the texts do not count; a text that only contains one of them is an answer."""
    rows = [{"q": "q", "a": text} for text in ("N/A", " n/a", "", " ", "N/A for now", "no")]
    report = bench.compile_rows(bench.write("t.yaml", SPEC + "empty: [N/A]\n"), rows)
    assert bench.values("t.jsonl", "output") == ["N/A for now", "no"]
    assert (report.kept, report.dropped) == (2, {"no answer": 4})
