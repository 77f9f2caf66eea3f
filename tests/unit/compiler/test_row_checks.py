"""At its threshold each warning and filter decides as it says, and one step beside it the other way."""

from dataclasses import replace

import pytest

from tests.unit.compiler.conftest import Bench
from tuneyard.compiler.check.filters import RowFilter, language_of
from tuneyard.compiler.compile import check_spec
from tuneyard.compiler.lint.duplicates import near_rows, similarity
from tuneyard.compiler.request import CompileRequest, Counts
from tuneyard.compiler.rows import Batch, Prefix
from tuneyard.compiler.spec.model import Filter, load_spec

CONTROLS = {*range(9), 11, 12, *range(14, 32), 127}  # all of ASCII's but tab and the ends of lines
QA = "{dataset: t, file: t.jsonl, format: alpaca, instruction: '{q}', output: '{a}'}"
SPEC = f"about: a\ncolumns: {{q: [q], a: {{names: [a], is: answer}}}}\nwrite: [{QA}]\n"


def words(count: int, start: int = 0) -> str:
    return " ".join(f"w{number}" for number in range(start, start + count))


def warned(bench: Bench, rows: list[dict], code: str) -> list[int]:
    """Return the numbers of the rows, from 0, that have this warning."""
    report = bench.compile_rows("qa", rows, force=True, most_problems=None)
    found = [problem for problem in report.problems.warnings if problem.code == code]
    return [int(problem.place.rsplit(":", 1)[1]) - 1 for problem in found]


@pytest.mark.parametrize(
    ("shared", "more", "near"), [(6, 1, True), (10, 2, True), (21, 5, False), (17, 4, False)]
)
def test_texts_are_near_from_four_fifths_on(shared, more, near):
    """`shared` words are shared - 2 runs of three; each word more is one more run in the union."""
    pytest.importorskip("rensa")
    one, other = words(shared), words(shared + more)
    share = (shared - 2) / (shared - 2 + more)
    assert similarity(one, other) == share and (share >= 0.8) == near
    assert list(near_rows([one, other])) == ([(1, 0, share)] if near else [])
    assert list(near_rows([one], [other])) == ([(0, 0, share)] if near else [])


def test_of_several_near_texts_the_first_is_named_once():
    pytest.importorskip("rensa")
    texts = [words(20), words(21), words(22), "another text", words(20)]
    assert [(row, twin) for row, twin, _ in near_rows(texts)] == [(1, 0), (2, 0), (4, 1)]
    assert [(row, twin) for row, twin, _ in near_rows(texts[:1], texts[1:])] == [(0, 0)]


@pytest.mark.parametrize(("size", "long"), [(999_999, False), (1_000_000, True)])
def test_a_row_is_very_long_from_a_million_characters_on(bench, size, long):
    rows = [{"question": "b", "answer": "c"}, {"question": "a" * (size - 4), "answer": "abcd"}]
    assert warned(bench, rows, "W207") == ([1] if long else [])


def test_every_control_character_and_no_other_is_told(bench):
    """Each alone: one of them in a batch makes the compiler look at every text of it."""
    spec, told = load_spec("qa"), []
    for code in (*range(33), 126, 127, 128):
        source = bench.rows("t.jsonl", [{"question": "q", "answer": f"{chr(code)}z"}])
        found = check_spec(spec, CompileRequest(sources=(str(source),))).problems.warnings
        told += [code for problem in found if problem.code == "W206"]
    assert told == sorted(CONTROLS)


def test_tokens_of_templates_are_those_that_templates_have(bench):
    shapes = ["<|{}|>", "<｜{}｜>"]
    names = ["", "im_end", "vision_start", "x" * 41]
    texts = [shape.format(name) for shape in shapes for name in names]
    others = ["<s>", "</s>", "[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<start_of_turn>", "<end_of_turn>"]
    usual = ["<t>", "<//s>", "[SINST]", "<<SYSTEM>>", "<|a-b|>", "<|a|", "INST]", "<middle_of_turn>"]
    usual += ["<|x|>", "<|list|>", "<| |>"]
    rows = [{"question": f"{n}.", "answer": f"a {t} b"} for n, t in enumerate([*texts, *others, *usual])]
    assert warned(bench, rows, "W205") == [1, 2, 5, 6, *range(8, 16)]


def test_answers_of_blanks_and_those_that_pandas_and_spreadsheets_write_for_none_are_empty(bench):
    texts = ["", " \t\r\n", ".", "\u00a0", "NaN", "Nancy", "#N/A", "None", "None of them."]
    rows = [{"question": str(n), "answer": text} for n, text in enumerate(texts)]
    assert warned(bench, rows, "W204") == [0, 1, 4, 6, 7]


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
    row_filter = RowFilter(replace(load_spec("text"), filter=Filter(keywords=(keyword,))), Counts())
    assert len(row_filter.kept(Batch(Prefix("t"), [1], {"text": [text]}))) == found
    assert row_filter.counts.dropped == ({} if found else {"no keyword": 1})
