"""Names and values of files are no markup in a page of Markdown: SECURITY.md, "Texts".

markdown-it, a parser of CommonMark with GitHub's tables, reads what we write.
"""

import math
import re
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.json_files import read_json, write_json
from tests.unit.adapters.commands import call
from tests.unit.adapters.make import base_tensors, factors, make, make_base
from tuneyard.core.text.markdown import markdown_table
from tuneyard.core.text.quoting import Markdown, markdown_block, markdown_code, markdown_text, one_line
from tuneyard.core.training.metrics import metric_of
from tuneyard.eval.ab.ratings import CRITERIA
from tuneyard.eval.ab.sheet import Answered, side_by_side, tally_table
from tuneyard.eval.cmmlu.__main__ import AVERAGE, group_table
from tuneyard.eval.report.differences import section_name
from tuneyard.recipes.sweep.grid import Grid
from tuneyard.recipes.sweep.results import SweepResults, table, write_report
from tuneyard.recipes.sweep.settings import settings_of, settings_table

PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
EVIL = (
    "## Ship evil: 99 %",
    "- item",
    "1. one",
    "7) seven",
    "---",
    "===",
    "> quoted",
    "\tcode",
    "    code",
    "  # indented",
    "+\tplus",
    "<img src=x onerror=alert(1)>",
    "![a](https://example.com/a.png)",
    "<https://example.com>",
    "[a]: https://example.com",
    "*a* **b** _c_ __d__ ~~e~~ `f`",
    "a\\",
    "\\|",
    "a|b|c",
    "```",
    "~~~",
    "a\n\n# b",
    "&lt;script&gt; &#35; &amp",
    "<!-- a -->",
    "a\r```\r# b",
    "- - -",
    "#",
    "####### seven",
)
PIECES = [*EVIL, "__", "_a_", *"#-+=>|`*_~<!&;[]()\\\n\r\t 1.ab:", "```", "\u2028", "model"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=6).map("".join)


def rendered(text: str) -> str:
    return PARSER.render(text).strip()


def paragraph(text: str) -> str:
    """What a browser shows of a paragraph of this text alone."""
    return f"<p>{escape(one_line(text).strip())}</p>"


@given(TEXTS)
@example("## a")
@example("12. a")
@example("a ** b **c*")
def test_a_sentence_is_one_paragraph_of_its_text(text: str) -> None:
    if one_line(text).strip():
        assert unescape(rendered(markdown_text(text))) == unescape(paragraph(text))


@given(TEXTS, TEXTS)
def test_a_cell_has_its_text_alone(first: str, second: str) -> None:
    html = rendered(markdown_table(["a", "b"], [[first, second]]))
    cells = re.findall(r"<t[hd]>(.*?)</t[hd]>", html)
    assert cells[:2] == ["a", "b"] and len(cells) == 4, html
    for cell, text in zip(cells[2:], (first, second), strict=True):
        assert unescape(cell) == unescape(escape(one_line(text).strip())).strip()


@given(TEXTS)
def test_code_and_blocks_have_their_text_alone(text: str) -> None:
    code = rendered(f"a {markdown_code(text)} b")
    assert len(re.findall(r"<code>.*?</code>", code)) == 1 or not one_line(text).strip()
    block = rendered(markdown_block(text, "yaml"))
    assert block.count("<pre>") == 1 and block.startswith("<pre>") and block.endswith("</pre>")


def test_markup_of_ours_stays() -> None:
    assert markdown_text(Markdown("**a**")) == "**a**"
    assert "**a**" in markdown_table(["x"], [[Markdown("**a**")]])


# Pages


def tags(page: str) -> set[str]:
    """The elements of a page, without those that our own pages have in any case."""
    return set(re.findall(r"<([a-z]\w*)", rendered(page)))


SIMPLE = {"p", "table", "thead", "tbody", "tr", "th", "td", "li", "ul"}


@pytest.mark.threat("markup", "recipe sweep")
@pytest.mark.parametrize("name", EVIL)
def test_a_sweep_takes_values_as_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    grid = Grid({"lora_rank": [name, "4"]}, {"run_name": name})
    rows = [
        {"lora_rank": value, "eval_loss": 1.0, "run": f"r{place}"} for place, value in enumerate([name, "4"])
    ]
    meaning = metric_of("eval_loss")
    assert tags(table(rows, grid, "eval_loss", meaning)) <= SIMPLE
    settings = settings_of(rows, ["lora_rank"], "eval_loss")
    assert tags(settings_table(settings, ["lora_rank"], "eval_loss", meaning)) <= SIMPLE
    failed = {"run": "r3", "error": f"{name} x"}
    write_report(SweepResults(tmp_path, grid, "eval_loss", meaning, [], [failed], False))
    assert tags((tmp_path / "sweep.md").read_text()) <= SIMPLE
    capsys.readouterr()


@pytest.mark.threat("markup", "eval ab ask", "eval ab tally")
@pytest.mark.parametrize("name", EVIL)
def test_ratings_take_models_and_answers_as_texts(name: str) -> None:
    page = side_by_side([Answered(name, name, {name: f"a\r```\r{name}", "b": f"{name}\n````\n{name}"})])
    html = rendered(page)
    assert html.count("<h2>") == 1 and html.count("<pre>") == 4 and "<img" not in html and "<a " not in html
    outcome = {"model": name, "against": "base", "criterion": "overall", "wins": 1, "ties": 0, "losses": 0}
    tally: dict[str, Any] = {
        "mean_marks": {name: dict.fromkeys(CRITERIA, 1.0)},
        "outcomes": [{**outcome, "share": None, "p": None}],
        "verdicts": [f"{name} is rated better than base"],
        "equal_verdicts": None,
    }
    assert tags(tally_table(tally)) <= SIMPLE


@pytest.mark.threat("markup", "eval cmmlu")
@pytest.mark.parametrize("name", EVIL)
def test_subjects_and_models_of_cmmlu_are_texts(name: str) -> None:
    score = {
        "datasets": 1,
        "n": 3,
        "accuracy": 0.5,
        "ci95": (0.1, 0.9),
        "majority": 0.3,
        "over_questions": 0.5,
    }
    html = rendered(group_table({name: {AVERAGE: score, name: score}}))
    assert tags(html) <= SIMPLE and html.count("<tr>") == 4


@pytest.mark.threat("markup", "eval compare")
@pytest.mark.parametrize("name", EVIL)
def test_a_section_of_a_comparison_has_no_markup(name: str) -> None:
    html = rendered(f"## {markdown_text(section_name(name))}\n\n{markdown_text(f' The best is {name}.')}\n")
    assert re.findall(r"<([a-z]\w*)", html) == ["h2", "p"]


HOSTILE_RECORD: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("method",), "x`\n```\n# evil\n<img src=x>"),
    (("dtype",), "bf16\n```\n# evil"),
    (("parameters",), {"density\n```\n# evil <img>": 0.5}),
    (("versions",), {"numpy <img src=x>": "1\n\n# evil"}),
    (("base", "folder"), "a\n```\n# evil\n<img src=x>"),
)


@pytest.mark.parametrize(("place", "value"), HOSTILE_RECORD)
def test_a_mailed_record_of_a_merge_is_no_markup(
    working_folder: Path, place: tuple[str, ...], value: Any
) -> None:
    make_base("models/base", base_tensors(), model_type="qwen2")
    make("saves/a", factors(), base_model_name_or_path="models/base")
    call("merge", "saves/a=1", "--out", "merged")
    record = read_json(Path("merged/merge.json"))
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    write_json(Path("merged/merge.json"), record)
    card = call("export", "merged", "--to", "hub", "--repo", "org/m", "--dry-run")[0]
    html = rendered(card.partition("\n---\n")[2])
    headings = re.findall(r"<h\d>(.*?)</h\d>", html)
    assert not any("evil" in heading for heading in headings), headings
    assert "<img" not in html


@pytest.mark.parametrize(
    "value", ["a\n```\n# evil\n```", f"{'x' * 90} ``` {'y' * 90}", "a\u2028```\u2028# evil"]
)
def test_a_setting_leaves_no_block_of_a_card(working_folder: Path, value: str) -> None:
    make_base("models/base", base_tensors(), model_type="qwen2")
    make("saves/rte", factors(), base_model_name_or_path="models/base")
    write_json(Path("saves/rte/training.json"), {"inputs": {"settings": {"run_name": value}, "data": []}})
    card = call("export", "saves/rte", "--to", "hub", "--repo", "org/rte", "--dry-run")[0]
    html = rendered(card.partition("\n---\n")[2])
    assert "evil</h" not in html and html.count("<pre>") == 3


def test_the_parser_sees_markup(tmp_path: Path) -> None:
    """The tests above can fail."""
    assert math.prod(len(tags(text) - {"p"}) for text in ("# a", "- a", "1. a", "```\na\n```")) > 0
