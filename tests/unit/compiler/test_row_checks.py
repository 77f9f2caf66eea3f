"""Each check of a row decides at its threshold as it says, and one step beside it the other way."""

import pytest

from tests.unit.compiler.conftest import Bench
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import check_dataset
from tuneyard.compiler.rows.problems import NO_LIMIT
from tuneyard.compiler.spec.load import load_spec

CONTROLS = {*range(9), 11, 12, *range(14, 32), 127}  # all of ASCII's but tab and the ends of lines


def warned(bench: Bench, rows: list[dict], code: str) -> list[int]:
    """Return the numbers of the rows, from 0, that have this warning."""
    report = bench.compile_rows("qa", rows, force=True, most_problems=NO_LIMIT)
    found = [problem for problem in report.problems.warnings if problem.code == code]
    return [int(problem.place.rsplit(":", 1)[1]) - 1 for problem in found]


@pytest.mark.parametrize(("size", "long"), [(999_999, False), (1_000_000, True)])
def test_a_row_is_very_long_from_a_million_characters_on(bench, size, long):
    rows = [{"question": "b", "answer": "c"}, {"question": "a" * (size - 4), "answer": "abcd"}]
    assert warned(bench, rows, "W207") == ([1] if long else [])


def test_every_control_character_and_no_other_is_told(bench):
    """Each alone: one of them in a batch makes the compiler look at every text of it."""
    spec, told = load_spec("qa"), []
    for code in (*range(33), 126, 127, 128):
        source = bench.rows("t.jsonl", [{"question": "q", "answer": f"{chr(code)}z"}])
        found = check_dataset(CompileRequest(spec, sources=(str(source),))).problems.warnings
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
    texts = ["", " \t\r\n", ".", "\u00a0", "NaN", "Nancy", "#N/A", "None", "None of them.", "无", "-", "-5"]
    rows = [{"question": str(n), "answer": text} for n, text in enumerate(texts)]
    assert warned(bench, rows, "W204") == [0, 1, 4, 6, 7, 9, 10]
