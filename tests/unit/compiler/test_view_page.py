"""The page of `data view` as a text: what it says above the rows, its policy, and hostile rows."""

import json
import re
from typing import Any

from tests.view_payloads import RED_DOT, chat, payload, row, with_losses
from tuneyard.compiler.view.page import GENERATOR, percentage, render_page
from tuneyard.compiler.view.payload import CodeCount
from tuneyard.core.drawing.page import content_policy
from tuneyard.core.language.reader import in_language

HOSTILE = "</script><script>document.title = 'ran'</script><!--\u2028\u2029\x00\ud83d'\"&amp;<img src=x>"


def rows(count: int) -> list[Any]:
    return [row(number, chat(f"Is {number} even?", "yes"), "yes") for number in range(1, count + 1)]


def data(page: str) -> dict[str, Any]:
    """What the script of a page reads."""
    text = page.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    parsed: dict[str, Any] = json.loads(text)
    return parsed


def visible(page: str) -> str:
    """The text of a page without its tags, script and style sheet."""
    return re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", page, flags=re.S)


def has(text: str, *parts: str) -> None:
    """Every part is in the text."""
    assert [part for part in parts if part not in text] == []


def test_the_top_of_the_page_has_the_share_learned_and_the_setup() -> None:
    text = visible(render_page(payload(rows(3), all_rows=1200, tokens=96_431, learned=2_990, cut=600)))
    has(text, "1,200", "96,431", "3.1 %", "alpaca_rte_train", "Qwen/Qwen2.5-0.5B-Instruct", "qwen", "2,048")
    has(text, "92,841", "96.3 %", "0.6 %", "seed 42")


def test_shares_are_of_all_rows_and_tiny_ones_are_not_zero() -> None:
    assert [percentage(1, 3), percentage(0, 5), percentage(1, 100_000), percentage(3, 0)] == [
        "33.3 %", "0.0 %", "<0.1 %", "0 %",
    ]  # fmt: skip


def test_every_count_is_a_filter_with_its_rows_and_share() -> None:
    values: dict[str, object] = {
        "all_rows": 1000,
        "labels": [("no", 250), ("yes", 750)],
        "problems": [CodeCount("W203", "decide which label is right", 14), CodeCount("cut", "raise it", 3)],
    }
    page = render_page(payload(rows(2), **values))
    items = page.split('<li><button type="button" ')[1:]
    filters = [
        re.findall(r'data-\w+="([^"]*)"|class="(?:rows|share)">([^<]*)<', item.partition("</li>")[0])
        for item in items
    ]
    figures = [tuple(one or other for one, other in each) for each in filters]
    assert [(name, value, count, share) for name, value, _text, count, share in figures] == [
        ("label", "no", "250", "25.0 %"),
        ("label", "yes", "750", "75.0 %"),
        ("problem", "W203", "14", "1.4 %"),
        ("problem", "cut", "3", "0.3 %"),
    ]
    has(visible(page), "decide which label is right")


def test_a_finding_about_no_single_row_is_no_filter() -> None:
    page = render_page(payload(rows(2), problems=[CodeCount("N352", "another system text", 0)]))
    has(visible(page), "N352", "another system text")
    assert 'data-value="N352"' not in page


def test_the_histogram_marks_the_cutoff_inside_its_bin() -> None:
    bins = [(1, 100, 30), (101, 200, 10), (201, 300, 1)]
    page = render_page(payload(rows(1), bins=bins, cutoff_len=150, over_cutoff=5))
    assert '<line x1="50.00%"' in page  # half way through the second of three bins
    assert re.findall(r'data-value="(\d+-\d+)"', page) == ["1-100", "101-200", "201-300"]
    assert re.findall(r'<rect class="(\w+)" x="0.5" .*? height="([\d.]+)"', page) == [
        ("within", "100.00"), ("within", "33.33"), ("over", "3.33")
    ]  # fmt: skip
    has(visible(page), "cutoff_len 150", "5 rows")
    without = render_page(payload(rows(1), bins=bins[:1], cutoff_len=2048))
    assert 'class="cutoff"' not in without


def test_hostile_rows_stay_inside_the_data() -> None:
    hostile = row(1, chat(HOSTILE, HOSTILE), HOSTILE, raw=HOSTILE, problems=[HOSTILE], note=HOSTILE)
    page = render_page(payload([hostile], dataset=HOSTILE, note=HOSTILE, file=HOSTILE))
    page.encode()  # a lone surrogate has become `?`
    assert page.count("<script") == 2 and page.count("</script>") == 2 and "<!--" not in page
    assert "<img" not in page
    kept = HOSTILE.replace("\ud83d", "?")
    assert data(page)["view"]["rows"][0]["raw"] == kept
    assert data(page)["view"]["rows"][0]["sides"][0]["turns"][3]["text"] == kept


def test_the_policy_allows_the_own_script_and_style_alone() -> None:
    page = render_page(payload(rows(1)))
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    style = page.partition("<style>")[2].partition("</style>")[0]
    policy = content_policy(script, style)
    assert policy.startswith("default-src 'none'; img-src data:;") and "unsafe" not in policy
    assert f'content="{policy}"' in page and GENERATOR in page[:1000]
    assert not re.search(
        r'\s(src|href|action)="(?!#)|\sstyle="|\son\w+="|url\((?!#)', page.replace(script, "")
    )


def test_without_a_model_the_page_has_the_rows_and_the_reason() -> None:
    raw = [row(1, [], "yes", raw='{"a": 1}', sides=[])]
    values: dict[str, object] = {"model": "", "note": "name one with --model", "bins": []}
    page = render_page(payload(raw, **values))
    has(visible(page), "1 row,", "name one with --model")
    assert 'class="shares"' not in page and 'class="histogram"' not in page and "longest first" not in page


def test_the_switch_to_losses_is_there_only_with_losses() -> None:
    assert 'value="loss"' not in render_page(payload(rows(2)))
    assert render_page(payload([with_losses(one) for one in rows(2)])).count('value="loss"') == 2


def test_the_page_in_chinese_has_chinese_texts_for_its_script() -> None:
    with in_language("zh"):
        page = render_page(payload([row(1, chat("你好", "你好"), images=[RED_DOT])]))
    assert '<html lang="zh-CN">' in page and data(page)["words"]["learned"] == "学习"
    has(visible(page), "模型学到什么", "被学习")
    assert "你好" in page  # not escaped: a Chinese page is half as large


def test_the_script_is_handed_translated_texts_alone() -> None:
    page = render_page(payload([row(1, chat("Hello", "Hello"))]))
    assert data(page)["words"] == {}
    with in_language("zh"):
        words = data(render_page(payload([row(1, chat("Hello", "Hello"))])))["words"]
    assert len(words) > 20
    assert [english for english, chinese in words.items() if english == chinese] == []
