"""Judgement and reason out of answers, worked by hand; figures by subtype and type."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.json_files import read_json
from tests.real_data import real_path
from tuneyard.eval.defect.reports import Report, canonical, judge, parse_report, report_summary
from tuneyard.eval.statistics.rates import wilson

PARSED = {
    "the document's form": ("判断:主机\n\n原因：内存溢出。", "主机", "内存溢出。"),
    "full-width colon": ("判断：主机\n原因:坏", "主机", "坏"),
    "spaces": (" 判断 ： 主机 \r\n\r\n原因 : 坏 \r\n", "主机", "坏"),
    "one line": ("判断：主机，原因：坏", "主机", "坏"),
    "bold mark": ("**判断**：主机\n**原因**：坏", "主机", "坏"),
    "bold with colon": ("**判断：** 主机。\n\n**原因：** 坏", "主机", "坏"),
    "heading and brackets": ("### 1. 【判断】：主机\n### 2. 【原因】：坏", "主机", "坏"),
    "quote": ("> 判断:“主机”", "主机", ""),
    "on the next line": ("判断：\n主机\n原因：\n坏", "主机", "坏"),
    "the pattern copied": ("判断:<主机>\n\n原因：<坏>", "主机", "<坏>"),
    "reason first": ("原因：坏\n判断:主机", "主机", "坏"),
    "said twice alike": ("判断:主机\n原因：坏\n判断：主机。", "主机", "坏"),
    "marks inside the reason": (
        "判断:主机\n原因：综合判断：坏，原因：不明",
        "主机",
        "综合判断：坏，原因：不明",
    ),
    "after a thought": ("<think>判断:网络</think>\n判断:主机", "主机", ""),
    "prose before": ("根据事件描述：\n\n判断:主机", "主机", ""),
}
UNPARSED = [
    "",
    "主机",
    "判断主机",
    "判断:\n\n原因：坏",
    "我判断：主机",
    "判断:主机\n判断:网络",
    "<think>判断:主机",
]


@pytest.mark.parametrize(("text", "judgement", "reason"), PARSED.values(), ids=PARSED)
def test_answers_that_parse(text: str, judgement: str, reason: str) -> None:
    assert parse_report(text) == Report(judgement, reason)


@pytest.mark.parametrize("text", UNPARSED)
def test_answers_that_do_not_parse(text: str) -> None:
    assert parse_report(text) is None
    assert judge("主机", text) == Report("unknown", "")


@given(st.text("主机网络 aB(), :：\n", min_size=1), st.text("原因判断不明 ,，:：\n"))
def test_no_answer_breaks_the_parser(judgement: str, reason: str) -> None:
    report = parse_report(f"判断:{judgement}\n\n原因：{reason}")
    assert report is None or (report.judgement and "\n" not in report.judgement)


def test_the_reference_spelling_is_kept_where_both_judge_alike() -> None:
    assert canonical("ＣＰＵ 故障。") == "cpu故障"
    assert judge("CPU故障", "判断：ＣＰＵ 故障。\n原因：热").judgement == "CPU故障"
    assert judge("CPU故障", "判断：主机").judgement == "主机"


def row(subtype: str, expected: str, predicted: str, **more: str) -> dict[str, object]:
    return {"subtype": subtype, "expected_output": expected, "predicted_output": predicted, **more}


def test_figures_by_subtype_and_type() -> None:
    rows = [
        row("溢出", "主机", "主机"),
        row("溢出", "主机", "unknown"),
        row("溢出", "网络", "网络"),
        row("断线", "网络", "主机", type="外部"),
    ]
    found = report_summary(rows)
    assert (found["accuracy"], found["n"], found["unparsed"], found["majority"]) == (0.5, 4, 1, 0.5)
    subtypes, types = found["subtypes"], found["types"]
    assert list(subtypes) == ["溢出", "断线"]  # the commonest first
    assert (subtypes["溢出"]["value"], subtypes["溢出"]["n"]) == (2 / 3, 3)
    assert subtypes["断线"]["ci95"] == list(wilson(0, 1))
    assert {name: (t["value"], t["n"]) for name, t in types.items()} == {
        "主机": (0.5, 2),
        "外部": (0, 1),
        "网络": (1, 1),
    }


def test_every_real_reference_parses() -> None:
    reports = [r["output"] for f in real_path("defect/raw").glob("*.json") for r in read_json(f)]
    assert len(reports) == 826
    for report in reports:
        judgement, reason = report["judgement"], report["reason"]
        assert parse_report(f"判断:{judgement}\n\n原因：{reason}") == Report(
            judgement.strip(), reason.strip()
        )
