"""The report in a real browser, from file://: filters, search and pages, and what hostile text does."""

import csv
import io
import re
from pathlib import Path

import pytest

from testing.browser import BROWSER, answered, in_frame, open_page, with_script
from tests.fake_runs import answers, demo, page_of, write_run
from tests.json_files import write_lines
from tests.unit.eval_report.test_html import data_of
from tuneyard.eval.compare.__main__ import compare_results
from tuneyard.eval.report.html import Page, render
from tuneyard.eval.runs.find import ScoredRunSource

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium here")]
STEPS = """
const seen = [];
const questions = () => [...list.querySelectorAll(".question")].map((question) => question.textContent);
const look = () => seen.push([count.textContent, questions()]);
const choose = (values) => {
  form.reset();
  Object.entries(values).forEach(([name, value]) => { form.elements[name].value = value; });
  form.dispatchEvent(new Event("input"));
  look();
};
clear();
look();
document.getElementById("next").click();
look();
choose({set: "1"});
choose({set: "1", model: "3"});
choose({model: "2", expected: "maybe", predicted: "no"});
choose({agree: "agree"});
choose({text: "QUESTION 17"});
return seen;
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    gold = ["yes", "no"] * 20
    kinds = {"type": ["a", "b"] * 20, "subtype": [f"k{n % 3}" for n in range(40)]}
    for model, right, seed in [("base", 20, 1), ("=m", 30, 2)]:
        write_run(folder, model, "s", gold, answers(gold, right, seed), kinds=kinds)
    return folder


@pytest.fixture(scope="module")
def small(runs: Path) -> str:
    return page_of(compare_results([ScoredRunSource(runs)]))


SHOWN = """
const shown = (values) => {
  Object.entries({...Object.fromEntries([...form.elements].map((e) => [e.name, ""])), ...values}).forEach(
    ([name, value]) => { if (name) form.elements[name].value = value; });
  form.dispatchEvent(new Event("input"));
  return found;
};
"""


def test_regressions_fixes_types_and_order(small: str, tmp_path: Path) -> None:
    rows = data_of(small)["rows"]

    seen = answered(small, SHOWN + """
      const names = (values) => shown(values).map((row) => row.row);
      const sure = (values) => shown(values).map((row) => row.answers.find((a) => a.model === 1).confidence);
      return [names({outcome: "fixed"}), names({outcome: "regressed"}), names({outcome: "fixed", type: "b"}),
        names({subtype: "k1"}), sure({order: "sure", model: "1"}), sure({order: "unsure", model: "1"}),
        names({text: `S/${data.rows[3].row}`}), names({text: "K2"}),
        [...shown({text: "no such"}), list.textContent]];
    """, tmp_path)  # fmt: skip
    assert list(data_of(small)["models"]) == ["base", "=m"]
    outcomes = {}
    for row in rows:
        by_model = sorted(row["answers"], key=lambda answer: answer["model"])
        outcomes[row["row"]] = [answer["right"] for answer in by_model]
    fixed = sorted(name for name, right in outcomes.items() if right == [False, True])
    regressed = sorted(name for name, right in outcomes.items() if right == [True, False])
    fixed_b = sorted(row["row"] for row in rows if row["row"] in fixed and row["type"] == "b")
    assert [sorted(one) for one in seen[:3]] == [fixed, regressed, fixed_b]
    assert all(seen[:7]) and seen[3] == [row["row"] for row in rows if row["subtype"] == "k1"]
    assert seen[4] == sorted(seen[4], reverse=True) and seen[5] == sorted(seen[5])
    assert rows[3]["row"] in seen[6] and len(seen[6]) < len(rows)
    assert seen[7] == [row["row"] for row in rows if row["subtype"] == "k2"]
    assert seen[8] == ["No example matches these filters."]


def test_an_example_has_a_link_that_shows_it_whatever_was_filtered(small: str, tmp_path: Path) -> None:
    rows = data_of(small)["rows"]
    last = rows[-1]["row"]
    dom = open_page(small, tmp_path, fragment=f"#example=s%2F{last}")
    assert f"page {-(-len(rows) // 10)} of" in dom
    (linked,) = re.findall('<li id="([^"]*)" class="linked">', dom)
    assert linked == f"example=s%2F{last}" and f'href="#{linked}"' in dom
    assert 'class="linked"' not in open_page(small, tmp_path, fragment="#example=s%2Fnone")


def test_what_is_shown_is_saved_as_csv(small: str, tmp_path: Path) -> None:
    text = answered(small, SHOWN + 'shown({outcome: "fixed"}); download(); return table();', tmp_path)
    header, *lines = csv.reader(io.StringIO(text))
    assert header[:6] == ["dataset", "example", "type", "subtype", "question", "expected"]
    assert header[6:8] == ["predicted (base)", "correct (base)"] and lines
    assert all(
        line[7] == "false" and line[11] == "true" and line[4] == f"question {line[1]}" for line in lines
    )
    assert answered(small, "return [cell('=1+1'), cell(' -x'), cell('a\"b'), cell(null)]", tmp_path) == [
        "\"'=1+1\"", "\"' -x\"", '"a""b"', '""'
    ]  # fmt: skip


def test_a_phone_scrolls_tables_and_not_the_page(small: str, tmp_path: Path) -> None:
    script = """
      const hints = [...document.querySelectorAll(".wide")].map((box) => box.dataset.hint);
      const root = document.documentElement;
      return [root.scrollWidth <= root.clientWidth, hints.find(Boolean)];
    """
    assert in_frame(small, script, tmp_path) == [True, "Scrolls sideways →"]
    wide = answered(
        small, "return document.querySelector('.wide').dataset.hint", tmp_path, "--window-size=1400,900"
    )
    assert wide == ""


@pytest.mark.parametrize("decide_on", ["", "demo_mnli_eval"])
def test_a_phone_shows_the_deciding_column_next_to_each_model(decide_on: str, tmp_path: Path) -> None:
    """Also next to a model with a long name. The bar stays, no figure is on two lines, and nothing is cut."""
    demo(tmp_path / "runs")
    long_name = "qwen2.5-3b-instruct-mnli-lora-r16-checkpoint-20000"
    gold = {"demo_rte_eval": ["yes", "no"] * 150, "demo_mnli_eval": ["yes", "no", "maybe"] * 100}
    for dataset, labels in gold.items():
        for model in (long_name, "rte=0.5,mnli=0.5"):
            write_run(tmp_path / "runs", model, dataset, labels, answers(labels, 250, 5))
    page = page_of(
        compare_results([ScoredRunSource(tmp_path / "runs")], decide_on=decide_on),
        next_command="tuneyard adapter merge saves/demo-rte=1 saves/demo-mnli=0.5 --out saves/rte-1-mnli-0.5",
    )
    script = """
      const head = document.querySelectorAll("#accuracy thead th")[1];
      const cells = [...document.querySelectorAll("#accuracy table tr > :nth-child(2)")];
      const shown = Math.max(...cells.map((cell) => cell.getBoundingClientRect().right)) <= 390;
      const bar = document.querySelector("nav");
      const dashes = [...document.querySelectorAll(".chart line.base")];
      const ends = dashes.map((one) => one.getBoundingClientRect());
      const unbroken = ends.every((one, place) => !place || Math.abs(one.top - ends[place - 1].bottom) < 1);
      const parts = ["h1", ".chart", ".next", "#accuracy", "#errors", "#differences", "#compared"];
      const tops = parts.map((part) => document.querySelector(part).getBoundingClientRect().top);
      const inOrder = tops.every((top, place) => place === 0 || tops[place - 1] < top);
      const details = [...document.querySelectorAll("#differences details, #provenance")];
      const folded = details.every((one) => !one.open);
      const first = document.querySelector("#differences summary").textContent;
      const root = document.documentElement;
      scrollTo(0, 2000);
      const stays = bar.getBoundingClientRect().top === 0 && bar.scrollWidth <= bar.clientWidth;
      const lines = (one) => one.getClientRects().length;
      const words = [...document.querySelectorAll(".next span")];
      const whole = [...document.querySelectorAll("td, .figure")].every((one) => lines(one) === 1)
        && words.length === 7 && words.every((one) => one.offsetHeight < 30);
      const names = [...document.querySelectorAll("tbody th")];
      const fit = names.every((one) => one.scrollWidth <= one.clientWidth);
      const outcome = form.elements.outcome, room = outcome.offsetWidth;
      outcome.style.width = "max-content";
      const uncut = whole && fit && outcome.offsetWidth <= room;
      const facts = [shown, inOrder, folded, stays, root.scrollWidth <= 390, uncut && unbroken];
      return [head.textContent.replaceAll("\u00a0", " "), first, ...facts];
    """
    column = f"{decide_on}, n = 300" if decide_on else "mean, n = 600"
    assert in_frame(page, script, tmp_path) == [column, decide_on or "mean", *[True] * 6]


def test_plots_follow_dark_mode_and_every_text_has_its_contrast(small: str, tmp_path: Path) -> None:
    script = """
      const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
      const paper = (one) => {
        const [r, g, b, alpha = 1] = rgb(getComputedStyle(one).backgroundColor);
        return alpha ? [r, g, b] : paper(one.parentElement);
      };
      const light = (parts) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, place) => {
        const part = parts[place] / 255;
        return sum + weight * (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
      }, 0.05);
      const contrasts = [...document.querySelectorAll("body *")].filter((one) => one.innerText).map((one) => {
        const [dark, pale] = [light(rgb(getComputedStyle(one).color)), light(paper(one))].sort();
        return pale / dark;
      });
      const colour = (one, what) => getComputedStyle(document.querySelector(one))[what];
      return [colour("body", "backgroundColor"), colour(".chart .base", "stroke"),
        colour("figure img", "filter"), Math.min(...contrasts) >= 4.5];
    """
    light, dark = answered(small, script, tmp_path), answered(small, script, tmp_path, "--force-dark-mode")
    assert light == ["rgb(255, 255, 255)", "rgb(27, 31, 36)", "none", True]
    assert dark == ["rgb(20, 24, 29)", "rgb(230, 233, 237)", "invert(1) hue-rotate(180deg)", True]


def test_thirteen_models_are_a_short_page_that_begins_with_what_the_recommended_one_makes_worse(
    tmp_path: Path,
) -> None:
    gold = ["yes", "no"] * 50
    for number in range(13):
        model = f"rte={number / 12:.3g},mnli=1" if number else "base"
        write_run(tmp_path / "runs", model, "s", gold, answers(gold, 50 + 3 * number, number))
    page = render(compare_results([ScoredRunSource(tmp_path / "runs")]), Page("x", errors=2000), [])
    script = """
      const labels = [form.elements.model, form.elements.outcome].map((one) => one.selectedOptions[0].text);
      const worse = found.every((row) => row.answers.find((a) => a.model === data.base).right
        && !row.answers.find((a) => a.model === data.best).right);
      return [document.documentElement.scrollHeight, labels, found.length > 0 && worse];
    """
    height, labels, worse = answered(page, script, tmp_path, "--window-size=1280,900")
    assert height <= 8000 and worse
    assert labels == ["rte=1,mnli=1", "incorrect here, correct in base"]


def test_without_javascript_the_first_examples_are_read(small: str, tmp_path: Path) -> None:
    dom = open_page(re.sub("script-src '[^']*'", "script-src 'none'", small), tmp_path)
    cards = dom[dom.index('<ul id="list">') : dom.index('<section id="differences">')]
    assert "question" in cards and "✗ incorrect: <bdi>" in cards and "expected: <bdi>" in cards
    assert '<form id="filters" aria-label="Filter the incorrect examples" hidden' in dom
    assert "Without JavaScript there are no filters" in dom


def test_the_keyboard_reaches_everything(small: str, tmp_path: Path) -> None:
    script = """
      const reached = [...document.querySelectorAll("a, button, select, input, [tabindex]")];
      reached[0].focus();
      return [document.activeElement.hash, reached.every((one) => one.tabIndex === 0),
        [...form.elements].every((one) => one.labels.length === 1)
          && new Set([...form.elements].map((one) => one.labels[0].firstChild.data)).size === form.length,
        document.querySelectorAll(".wide").length,
        document.querySelectorAll('.wide[tabindex="0"]').length];
    """
    first, reachable, labelled, wide, scrolled = answered(small, script, tmp_path)
    assert (first, reachable, labelled) == ("#verdict", True, True) and wide == scrolled > 3


def test_filters_search_and_pages(without_plots: None, tmp_path: Path) -> None:
    demo(tmp_path / "runs")
    page = page_of(compare_results([ScoredRunSource(tmp_path / "runs")]))
    rows = data_of(page)["rows"]
    seen = answered(page, STEPS, tmp_path)

    predictions = [{answer["model"]: answer["predicted"] for answer in row["answers"]} for row in rows]
    of_rte = sum(row["dataset"] == 1 for row in rows)
    confused = sum(
        row["expected"] == "maybe" and predicted[2] == "no"
        for row, predicted in zip(rows, predictions, strict=True)
    )
    agreed = sum(len(set(predicted.values())) == 1 for predicted in predictions)
    of_text = sum("question 17" in row["question"] for row in rows)
    # rte has all of its set right
    assert [int(text.split()[0]) for text, _ in seen] == [
        len(rows), len(rows), of_rte, 0, confused, agreed, of_text
    ]  # fmt: skip
    assert 0 < confused < of_rte < len(rows)
    assert seen[0][0] == f"{len(rows)} of {len(rows)} examples, page 1 of {-(-len(rows) // 10)}"
    assert seen[1][0].endswith(f"page 2 of {-(-len(rows) // 10)}")
    assert len(seen[0][1]) == len(seen[1][1]) == 10 and not set(seen[0][1][:1]) & set(seen[1][1])
    assert all("question 17" in question for question in seen[6][1]) and seen[6][1]


def test_a_script_that_is_not_of_the_page_does_not_run(small: str, tmp_path: Path) -> None:
    script = "document.title = 'it ran'"
    foreign = small.replace("</body>", f'<script>{script}</script><p onclick="{script}"></p></body>')
    dom = open_page(foreign, tmp_path)
    assert "<title>it ran" not in dom and "examples, page 1 of" in dom
    assert "<title>it ran" in open_page(with_script(small, script), tmp_path)


def test_hostile_answers_do_nothing(tmp_path: Path) -> None:
    run = "document.title='run'"
    hostile = f'<!-- <script </script><img src=x onerror="{run}"><script>{run}</script>'
    rows = [{"id": n, "gold": "a", "prediction": hostile, "prompt": hostile} for n in range(3)]
    path = tmp_path / "log.jsonl"
    write_lines(path, rows)
    dom = open_page(page_of(compare_results([ScoredRunSource(path)]), hostile, errors=9), tmp_path)
    assert dom.count("✗ incorrect: <bdi>&lt;!-- &lt;script &lt;/script&gt;&lt;img") == 3
    assert "<title>&lt;!-- &lt;script &lt;/script&gt;" in dom and "<img src=x" not in dom
