"""The page of `data view` in a real browser, from file://: tokens, filters, keys, phone, dark, size."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pytest

from testing.browser import BROWSER, answered, in_frame, open_page
from tests.view_payloads import RED_DOT, chat, payload, row, turn, with_counts, with_losses
from tuneyard.compiler.view.page import render_page
from tuneyard.compiler.view.payload import (
    CUT,
    LEARNED,
    MASKED,
    PageBlock,
    PageRow,
    PageSide,
)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium here")]

TOOLS = """
const press = (key) => {
  const event = new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true });
  document.activeElement.dispatchEvent(event);
};
const filter = (facet, value) => {
  document.querySelector(`[data-facet="${facet}"][data-value="${value}"]`).click();
};
const numbers = () => [...list.querySelectorAll(".row")].map((row) => Number(row.id.slice(4)));
const write = (text) => {
  tools.elements.text.value = text;
  tools.elements.text.dispatchEvent(new Event("input"));
};
const order = (name) => {
  tools.elements.order.value = name;
  tools.elements.order.dispatchEvent(new Event("change"));
};
const texts = (selector) => [...list.querySelectorAll(selector)].map((one) => one.textContent);
const tipOf = (token) => {
  token.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
  return tip.textContent;
};
"""


def rows(count: int) -> list[PageRow]:
    """Every third row is labelled no, every seventh and every tenth has a problem.

    Each row is longer than the one before it.
    """
    made = []
    for number in range(1, count + 1):
        label = "no" if number % 3 == 0 else "yes"
        problems = ["W203"] * (number % 7 == 0) + ["W202"] * (number % 10 == 0)
        turns = chat("word " * number + f"question {number}?", label)
        made.append(row(number, turns, label, problems=problems))
    return made


def at(page: str, script: str, folder: Path, *flags: str) -> Any:
    """What a script returns on the page, with the helpers of TOOLS."""
    return answered(page, TOOLS + script, folder, *flags)


def test_the_untouched_page_shows_its_rows_under_its_own_policy(tmp_path: Path) -> None:
    dom = open_page(render_page(payload(rows(30))), tmp_path)
    assert len(re.findall('<article class="row"', dom)) == 20 and "30 of 30 rows on this page" in dom
    assert '<span class="t learned">yes</span>' in dom and "Show 10 rows more" in dom


def test_every_token_has_its_state(tmp_path: Path) -> None:
    cut = PageBlock("assistant", "text", "one two three", [(3, LEARNED), (4, LEARNED), (6, CUT)])
    page = render_page(payload([row(1, [turn("template", "<|user|>\n"), turn("user", "count"), cut])]))
    seen = at(page, """
      const [first] = list.querySelectorAll(".row");
      const tokens = [...first.querySelectorAll(".t")];
      const states = tokens.map((one) => [one.textContent, one.className.split(" ")[1]]);
      const style = (name) => getComputedStyle(first.querySelector(`.t.${name}`));
      const lines = ["learned", "cut", "masked"].map((name) => style(name).textDecorationLine);
      return [states, ...lines, tipOf(first.querySelectorAll(".t")[3]), tipOf(first.querySelector(".t.cut"))];
    """, tmp_path)  # fmt: skip
    assert seen[0] == [
        ["<|user|>", "masked"], ["\n", "masked"], ["count", "masked"],
        ["one", "learned"], [" two", "learned"], [" three", "cut"],
    ]  # fmt: skip
    assert seen[1:] == [
        "underline", "line-through", "none",
        "token 4 of 6 · learned", "token 6 of 6 · cut off",
    ]  # fmt: skip


def test_filters_search_and_orders_combine(tmp_path: Path) -> None:
    made = rows(60)
    seen = at(render_page(payload(made)), """
      const seen = [];
      filter("label", "no"); seen.push(numbers());
      filter("problem", "W202"); seen.push(numbers());
      filter("label", "no"); seen.push(numbers());
      const active = [...document.querySelectorAll("#active button")];
      seen.push(active.map((one) => one.textContent));
      active[0].click(); seen.push(numbers().length);
      filter("problem", "W203"); seen.push(numbers());
      filter("problem", "W203");
      press("Escape"); write("QUESTION 17"); seen.push(numbers());
      write("no such text"); seen.push(list.textContent);
      press("Escape"); order("longest"); seen.push(numbers().slice(0, 3));
      order("most"); seen.push(numbers().slice(0, 3));
      order("file"); filter("length", document.querySelector('[data-facet="length"]').dataset.value);
      seen.push(numbers());
      return seen;
    """, tmp_path)  # fmt: skip
    no = [each.row for each in made if each.label == "no"]
    repeated = [10, 20, 30, 40, 50, 60]
    assert seen[0] == no and seen[1] == [30, 60] and seen[2] == repeated
    assert seen[3] == ["W202 ✕"] and seen[4] == 20
    assert seen[5] == [7, 14, 21, 28, 35, 42, 49, 56]
    assert seen[6] == [17] and seen[7] == "No row on this page matches these filters."
    assert seen[8] == [60, 59, 58] and seen[9] == [1, 2, 3]
    first_bin = payload(made).bins[0]
    assert seen[10] == [each.row for each in made if first_bin[0] <= each.tokens <= first_bin[1]]


def test_the_keyboard_moves_between_rows_and_tokens(tmp_path: Path) -> None:
    seen = at(render_page(payload(rows(30))), """
      const seen = [];
      const here = () => document.activeElement.id;
      press("j"); seen.push(here());
      press("j"); press("ArrowDown"); seen.push(here());
      press("k"); seen.push(here());
      press("ArrowRight"); press("ArrowRight"); seen.push(tip.textContent);
      dispatchEvent(new Event("scroll")); seen.push(tip.hidden);
      press("ArrowLeft"); seen.push(tip.textContent);
      press("r"); seen.push(document.activeElement.querySelector(".raw").open);
      for (let step = 0; step < 20; step += 1) press("j");
      seen.push(here(), list.children.length);
      press("/"); seen.push(document.activeElement.name);
      press("j"); seen.push(document.activeElement.name);
      press("Escape"); press("?"); seen.push(byId("keys").open);
      byId("keys").close();
      const controls = [...document.querySelectorAll("a[href], button, select, input, summary")];
      seen.push(controls.every((one) => one.tabIndex === 0));
      const filters = [...document.querySelectorAll("[data-facet]")];
      seen.push(filters.every((one) => one.tagName === "BUTTON" && one.hasAttribute("aria-pressed")));
      return seen;
    """, tmp_path, "--window-size=1280,900")  # fmt: skip
    assert seen == [
        "row=1", "row=3", "row=2", "token 2 of 27 · masked", False,
        "token 1 of 27 · masked", False,
        "row=22", 30, "text", "text", True, True, True,
    ]  # fmt: skip


def test_a_link_shows_its_row(tmp_path: Path) -> None:
    dom = open_page(render_page(payload(rows(60))), tmp_path, fragment="#row=45")
    assert len(re.findall('<article class="row"', dom)) == 60 and "20 rows more" not in dom


def test_half_characters_are_one_span_that_counts_its_tokens(tmp_path: Path) -> None:
    """😀 is two UTF-16 units in the browser, one character in Python, and four tokens here."""
    spans: list[Any] = [(1, LEARNED), (0, LEARNED), (0, LEARNED), (0, LEARNED), (1, LEARNED), (1, MASKED)]
    answer = PageBlock("assistant", "text", "好😀的", spans)
    ending = PageBlock("assistant", "text", "是", [(1, LEARNED), (0, CUT), (0, CUT)])
    nothing = PageBlock("assistant", "text", "", [(0, CUT)])
    seen = at(render_page(payload([row(1, [answer, ending, nothing])])), """
      const tokens = [...list.querySelectorAll(".t")];
      return [tokens.map((one) => one.textContent), tokens.map((one) => one.title), tokens.map(tipOf)];
    """, tmp_path)  # fmt: skip
    assert seen[0] == ["好", "😀", "的", "是", "\ufffd"]
    assert seen[1] == ["", "4 tokens make this character", "", "3 tokens make this character", ""]
    assert seen[2] == [
        "token 1 of 10 · learned",
        "tokens 2 to 5 of 10, one character · learned",
        "token 6 of 10 · masked",
        "tokens 7 to 9 of 10, one character · learned · cut off",
        "token 10 of 10 · cut off",
    ]


def test_right_to_left_turns_run_right_to_left_and_keep_their_joins(tmp_path: Path) -> None:
    """Arabic letters join across tokens: the text is as wide in spans as in one piece."""
    text = "القاهرة هي عاصمة مصر"
    spans: list[Any] = [(3, LEARNED)] * 6 + [(len(text) - 18, LEARNED)]
    arabic = [turn("user", "ما هي عاصمة مصر؟"), PageBlock("assistant", "text", text, spans)]
    seen = at(render_page(payload([row(1, arabic), row(2, chat("hello", "yes"))])), """
      const [, answer] = list.querySelectorAll(".text");
      const english = list.children[1].querySelector(".user .text");
      const width = (box) => {
        const range = document.createRange();
        range.selectNodeContents(box);
        return range.getBoundingClientRect().width;
      };
      const inSpans = width(answer);
      const plain = answer.cloneNode(false);
      plain.textContent = answer.textContent;
      answer.replaceWith(plain);
      return [getComputedStyle(plain).direction, getComputedStyle(english).direction, inSpans, width(plain)];
    """, tmp_path)  # fmt: skip
    assert seen[:2] == ["rtl", "ltr"]
    assert seen[2] == pytest.approx(seen[3], rel=0.02)


def test_pairs_marks_calls_and_images_are_shown_as_such(tmp_path: Path) -> None:
    sides = [
        PageSide("chosen", "", chat("Why?", "Because.")),
        PageSide("rejected", "", chat("Why?", "No.")),
    ]
    calls = [
        turn("user", "Weather?"),
        turn("assistant", "call it", LEARNED, "thought"),
        turn("assistant", '{"name": "weather"}', LEARNED, "tool_call"),
        turn("observation", '{"temp": 21}', MASKED, "tool_result"),
    ]
    image = [
        turn("user", "What?"),
        turn("user", "<|pad|>" * 9, MASKED, "image"),
        turn("assistant", "A dot.", LEARNED),
    ]
    page = render_page(payload([
        with_counts(PageRow(1, "{}", sides=sides)),
        with_counts(PageRow(2, "{}", sides=[PageSide("", "bad", chat("2+2?", "5"))])),
        row(3, calls),
        row(4, image, images=[RED_DOT, "javascript:alert(1)", "data:image/svg+xml,<svg/>"]),
        PageRow(5, '{"output": 3}', dropped="the answer is a number", problems=["E406"]),
    ]))  # fmt: skip
    script = """
      const boxes = [...list.querySelectorAll(".side")].slice(0, 2).map((one) => one.getBoundingClientRect());
      const images = [...list.querySelectorAll("img")];
      const dropped = list.children[4];
      return [boxes[0].top === boxes[1].top, boxes[0].left === boxes[1].left, texts("h3"),
        texts(".role span"), images.length, images.every((one) => one.complete && one.naturalWidth > 0),
        dropped.querySelector(".notice").textContent, dropped.querySelector("details.raw").open];
    """
    wide = at(page, script, tmp_path, "--window-size=1280,900")
    assert wide == [
        True, False, ["✓ chosen", "✗ rejected", "✗ bad answer"],
        ["thought", "tool call", "tool result", "image"], 1, True,
        "LLaMA-Factory leaves this row out: the answer is a number", True,
    ]  # fmt: skip
    phone = in_frame(page, TOOLS + script, tmp_path)
    assert phone[:2] == [False, True]


def test_losses_colour_tokens_and_order_rows(tmp_path: Path) -> None:
    made = [with_losses(each) for each in rows(25)]
    seen = at(render_page(payload(made)), """
      const first = numbers();
      const learned = list.querySelector(".t.learned");
      const colour = () => getComputedStyle(learned).backgroundColor;
      const before = colour();
      const [state] = tools.querySelectorAll('[value="state"]');
      state.click();
      return [first, before !== colour(), byId("scale").hidden, tipOf(learned), texts(".chip.loss")[0]];
    """, tmp_path)  # fmt: skip
    by_loss = sorted(made, key=lambda each: -(each.loss or 0))
    assert seen[0] == [each.row for each in by_loss[:20]] and seen[1] and seen[2]
    assert re.fullmatch(r"token \d+ of \d+ · learned · loss \d\.\d{3} \(p 0\.\d{3}\)", seen[3])
    assert seen[4] == f"loss {by_loss[0].loss:.2f}"


def test_a_phone_does_not_scroll_sideways_and_hides_the_overview(tmp_path: Path) -> None:
    script = """
      const root = document.documentElement;
      const target = list.querySelector(".t.learned");
      target.click();
      const box = tip.getBoundingClientRect();
      return [root.scrollWidth <= root.clientWidth, byId("overview").open, list.querySelector(".raw").open,
        tip.hidden, box.left >= 0 && box.right <= 390];
    """
    long = row(1, chat("x" * 3000 + " 今天天气怎么样" * 50, "y" * 500), "z" * 300, problems=["W203"])
    page = render_page(payload([long, *rows(5)[1:]], dataset="a_very_long_name_" * 10))
    assert in_frame(page, TOOLS + script, tmp_path) == [True, False, False, False, True]


def test_the_page_is_dark_where_the_system_is(tmp_path: Path) -> None:
    """Text keeps a contrast of at least 4.5 : 1 on tokens of every state, in light and dark."""
    cut = PageBlock("assistant", "text", "one two", [(3, LEARNED), (4, CUT)])
    page = render_page(payload([row(1, [turn("user", "a b"), cut])]))
    script = """
      const parts = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number);
      const light = (colour) => parts(colour).map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, place) => sum + c * [0.2126, 0.7152, 0.0722][place], 0);
      const contrast = (one, other) => {
        const [dark, bright] = [light(one), light(other)].sort((a, b) => a - b);
        return (bright + 0.05) / (dark + 0.05);
      };
      const worst = Math.min(...[...list.querySelectorAll(".t:not(.cut)")].map((token) =>
        contrast(getComputedStyle(token).color, getComputedStyle(token).backgroundColor)));
      return [light(getComputedStyle(document.body).backgroundColor), worst];
    """
    bright, contrast = at(page, script, tmp_path)
    dark, dark_contrast = at(page, script, tmp_path, "--force-dark-mode")
    assert bright > 0.8 and dark < 0.02
    assert contrast >= 4.5 and dark_contrast >= 4.5


def test_without_tokens_the_raw_rows_are_the_page(tmp_path: Path) -> None:
    raw = [PageRow(number, json.dumps({"instruction": f"q{number}"})) for number in range(1, 4)]
    page = render_page(payload(raw, model="", note="name a model", bins=[]))
    seen = at(page, """
      return [texts("details.raw[open] pre").length, document.querySelector("header .notice").textContent,
        document.querySelectorAll(".histogram, .shares, .legend, .figures").length, numbers()];
    """, tmp_path)  # fmt: skip
    assert seen == [3, "name a model", 0, [1, 2, 3]]


def test_hostile_rows_do_nothing_and_nothing_is_requested(tmp_path: Path) -> None:
    run = "document.title='ran'"
    hostile = f'<!-- </script><script>{run}</script><img src=http://localhost:9/x onerror="{run}">'
    one = row(1, chat(hostile, hostile), hostile, problems=[hostile], note=hostile, raw=hostile)
    one.images = ["http://localhost:9/image.png"]
    page = render_page(payload([one], dataset=hostile, note=hostile, file=hostile))
    dom = open_page(page, tmp_path)
    assert "<title>ran" not in dom and "<img" not in dom and "1 of 1 row on this page" in dom
    requests = at(page, "return performance.getEntriesByType('resource').length", tmp_path)
    assert requests == 0
    foreign = page.replace("</body>", f'<script>{run}</script><p onclick="{run}"></p></body>')
    assert "<title>ran" not in open_page(foreign, tmp_path)


def test_a_row_of_a_megabyte_is_shown_in_parts(tmp_path: Path) -> None:
    long = row(1, [turn("user", "word " * 200_000)], raw="x" * 1_000_000)
    seen = at(render_page(payload([long])), """
      const first = [list.querySelectorAll(".t").length, list.querySelector("pre").textContent.length];
      list.querySelector(".raw .part").click();
      const button = list.querySelector(".sides .part");
      return [...first, list.querySelector("pre").textContent.length, button.textContent];
    """, tmp_path)  # fmt: skip
    assert seen == [3000, 20_000, 1_000_000, "Show all 200,001 tokens"]


def test_twenty_megabytes_are_usable_within_three_seconds(tmp_path: Path) -> None:
    """2,000 rows, 20 MB: from the start of loading to the first rows, then a search and a filter."""
    draw = random.Random(1)
    words = ["alpha", "beta", "gamma", "delta", "天气", "epsilon"]
    made = []
    for number in range(1, 2001):
        question = " ".join(draw.choices(words, k=475))
        made.append(row(number, chat(question, "yes"), draw.choice(["yes", "no"]), raw=question))
    page = render_page(payload(made))
    size = len(page.encode())
    assert 18_000_000 < size < 22_000_000
    script = """
      const start = performance.now();
      write("question that no row has");
      const searched = performance.now();
      write(""); filter("label", "yes");
      return [start, searched - start, performance.now() - searched, numbers().length];
    """
    loaded, search, filtered, shown = answered(page, TOOLS + script, tmp_path, time="")
    times = f"loaded {loaded:.0f} ms, search {search:.0f} ms, filter {filtered:.0f} ms"
    print(f"{size:,} bytes: {times}")
    assert shown == 20
    assert loaded < 3000 and search < 3000 and filtered < 3000
