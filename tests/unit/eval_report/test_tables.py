"""Tables and JSON of a comparison: what people and programs read of it."""

import re

import pytest

from tests.fake_runs import NEW, OLD, VALID, compare, fake_run, flags, labelled, table_json, two_datasets
from tests.messages import golden_text
from tuneyard.core.language.reader import in_language
from tuneyard.eval.report.tables import markdown, method, scores
from tuneyard.eval.runs.findings import FailedTraining


def test_wide_letters_are_aligned_and_a_bar_in_a_name_does_not_break_the_table() -> None:
    lines = markdown(compare([fake_run("base", OLD), fake_run("缺|陷", NEW)], "base")).splitlines()
    assert lines[4].startswith("| 缺\\|陷                   | 70.0 %")


def test_json_holds_what_the_page_says() -> None:
    found = table_json(two_datasets(), findings=[FailedTraining("runs/3")])
    assert VALID(found)
    section = found["datasets"]["s"]
    assert section["models"]["a"]["accuracy"] == 0.7 and section["n"] == 100 and section["verdict"] == ""
    assert section["comparisons"][0]["value"] == 0.25 and section["ship"] == "a"
    assert found["mean"]["ship"] == "a" and found["mean"]["verdict"].startswith("Ship a: 70.0 %")
    assert (
        found["runs"] == ["base/s", "a/s", "base/t", "a/t"]
        and found["warnings"][0] == "runs/3: left out, it failed"
    )


def test_many_sets_are_rows_unless_there_are_as_many_models() -> None:
    many = [fake_run(f"m {model}", [True], f"set {n}") for n in range(9) for model in range(9)]
    assert "m 8" not in scores(compare(many, "m 0")).header
    runs = [fake_run(model, [True, False], f"set {n}") for n in range(9) for model in ("base", "a")]
    lines = markdown(compare(runs, "base")).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[2:5]] == ["base", "a", "majority-class baseline"]
    assert lines[4].startswith("| mean, n = 18 ") and lines[5].startswith("| set 0, n = 2 ")


def test_the_method_is_plain_sentences_in_both_languages() -> None:
    models = {"base": OLD, "a": NEW, "b": NEW[::-1], "c": OLD[::-1]}
    for groups in (None, [str(i // 4) for i in range(100)]):
        for count in (2, 3, 4):
            chosen = list(models.items())[:count]
            runs = [fake_run(name, right, set_, groups) for name, right in chosen for set_ in "st"]
            comparison = compare(runs, "base")
            for section in comparison.sections:
                assert ":" not in method(section)
                with in_language("zh"):
                    text = method(section)
                assert "：" not in text and not re.search("[a-z]{2,}", text.replace("mid-p McNemar", ""))
    golden_text(method(comparison.sections[0]), "3")


def test_the_section_that_decides_is_the_first_column() -> None:
    for decide_on, names in (("", ["mean", "s", "t"]), ("t", ["t", "s", "mean"])):
        header = scores(compare(two_datasets(), "base", decide_on)).header
        assert [cell.partition(",")[0] for cell in header[1:]] == names


@pytest.mark.parametrize("groups", [None, [str(i // 5) for i in range(100)]])
def test_json_has_no_nan(groups: list[str] | None) -> None:
    for one, other in [flags(100, 0, 0, 0), flags(0, 0, 0, 100), flags(0, 0, 100, 0)]:
        runs = [fake_run("base", one, groups=groups), fake_run("a", other, groups=groups)]
        assert VALID(table_json(runs))
        markdown(compare(runs, "base"))


def test_a_model_that_gives_one_answer_to_every_example_is_marked() -> None:
    gold = ["yes", "no", "no", "no"]
    runs = [labelled("base", gold, ["I say:\n\nno"] * 4), labelled("a", gold, gold)]
    lines = markdown(compare(runs, "base")).splitlines()
    assert ', always "I say: no" |' in lines[5] and "always" not in lines[4]
    assert VALID(table_json(runs))
    assert "always" not in markdown(compare([fake_run("base", [True] * 4)], "base"))
