"""The Chinese of tables, plots, verdicts and the page: whole, used, with the fields of the English."""

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from core import language
from core.drawing import Typeface
from core.language import CHINESE, catalogue, in_language, listed, tr
from eval import compare, report
from eval.reports import plots
from eval.reports.compared import compare_in_metric, compare_results
from eval.reports.html import GLOSSARY
from eval.reports.tables import markdown
from tests.conftest import ROOT
from tests.fake_runs import answers, demo, write_run

PAGE = ROOT / "eval/reports/page"
CHINESE_LETTER = re.compile("[\u4e00-\u9fff]")
FIELD = re.compile(r"\{\w+(?::[^}]*)?\}")


def on_the_page() -> set[str]:
    """Return the texts that the template and the script ask for."""
    template, script = ((PAGE / name).read_text(encoding="utf-8") for name in ("page.html", "script.js"))
    asked = re.findall(r'tr\("(.*?)"', template + script)
    return {*asked, *re.findall(r'"([✓✗] \w+)"', script)}


def strings(folder: Path) -> set[str]:
    """Return every string of a folder's code, those in pieces put together."""
    found = set()
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def test_the_fields_of_both_languages_are_the_same() -> None:
    for english, chinese in catalogue(CHINESE).items():
        assert sorted(FIELD.findall(english)) == sorted(FIELD.findall(chinese)), english


def test_no_text_is_left_that_nothing_asks_for() -> None:
    asked = strings(ROOT / "eval") | strings(ROOT / "core") | on_the_page()
    kinds = {key for key in catalogue(CHINESE) if "types, behind in" in key}  # put together by kind
    assert {*catalogue(CHINESE)} - asked - kinds == set()


def test_every_text_of_the_page_and_the_glossary_is_there() -> None:
    assert on_the_page() <= {*catalogue(CHINESE)}
    assert {*GLOSSARY, *GLOSSARY.values()} <= {*catalogue(CHINESE)}


class Asked(dict[str, str]):
    """A catalogue that remembers what it lacks."""

    def __init__(self, words: Mapping[str, str]) -> None:
        super().__init__(words)
        self.missing: set[str] = set()

    def get(self, key: str, default: str = "") -> str:  # type: ignore[override]  # no other default is asked
        if key not in self:
            self.missing.add(key)
        return super().get(key, default)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_no_text_of_a_comparison_lacks_its_chinese(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(catalogue(CHINESE))
    monkeypatch.setattr(language, "catalogue", lambda name: asked if name == CHINESE else {})
    monkeypatch.setattr(plots, "choose_typeface", lambda _: Typeface(("DejaVu Sans",), {}))
    gold = ["yes", "no"] * 40
    kinds = {"type": ["x", "y"] * 40, "subtype": [f"k{n // 3}" for n in range(80)]}
    for seed, (model, right) in enumerate([("base", 50), ("a", 70), ("b", 72), ("c", 20)]):
        for name in "st":
            groups = [str(n // 2) for n in range(80)] if name == "s" else None
            metric = {"brier": {"value": 0.5, "n": 80, "unit": "points", "higher_is_better": name == "s"}}
            one = {"mean": 0.5, "sd": 0.1, "ci95": [0.4, 0.6], "values": [0.4, 0.6]}
            repeats = {"n": 2, "figures": {"accuracy": one}}
            trained = {"examples": 80 - seed, "sources": [], "same_name": ["x"], "not_checked": ["why"]}
            write_run(
                tmp_path / "runs", model, name, gold, answers(gold, right, seed), groups, kinds,
                metrics=metric, trained_on=trained if seed in (0, 1) else None, repeats=repeats,
            )  # fmt: skip
    with in_language(CHINESE):
        for choose in (False, True):
            recipes = [] if choose else ["x=a,b"]
            found = compare_results([str(tmp_path / "runs")], "", 0.05, recipes, "type", choose)
            page = report.render(found, "x")
            markdown(found.comparison, {"a": "#1"})
        for metric in ("brier", "label_mass"):
            markdown(compare_in_metric([str(tmp_path / "runs")], metric, "").comparison, {})
    assert asked.missing <= {"n", "points", "x"} and "基线" in page


def test_names_are_listed() -> None:
    assert listed(["a"]) == "a" and listed(["a", "b", "c"]) == "a, b and c"
    with in_language(CHINESE):
        assert listed(["a", "b", "c"]) == "a、b 和 c" and tr("no such text") == "no such text"


@pytest.mark.filterwarnings("ignore:Glyph")
def test_a_chinese_page_and_table(tmp_path: Path) -> None:
    demo(tmp_path / "runs")
    done = CliRunner().invoke(
        report.cli, [str(tmp_path / "runs"), "--lang", "zh", "--out", str(tmp_path / "x.html")]
    )
    page = (tmp_path / "x.html").read_text(encoding="utf-8")
    assert done.exit_code == 0 and '<html lang="zh-CN">' in page
    plain = re.sub("<.*?>", "", page)
    assert "mnli、merge 和 rte 在 2 个数据集（demo_mnli_eval、demo_rte_eval）的平均准确率上优于 base" in plain
    for term in ("置信区间", "配对检验", "多数类基线", "错误样本", "由错变对", "由对变错", "术语表"):
        assert term in plain
    page = re.sub("<svg.*?</svg>", "", page, flags=re.S)  # in English where no font has Chinese letters
    for english in (">Verdict<", "interval)", "majority-class", "examples that"):
        assert english not in page[: page.index('<script type="application/json"')]
    done = CliRunner().invoke(
        compare.cli, [str(tmp_path / "runs"), "--lang", "zh", "--out", str(tmp_path / "c")]
    )
    assert done.exit_code == 0 and "\n\n采用 mnli：83.5 %，base 为 41.7 %" in done.stdout
    assert "## 平均\n\nmnli、merge 和 rte 在 2 个数据集" in done.stdout


def test_a_warning_is_in_one_language(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    demo(tmp_path / "runs")
    unfinished = next(tmp_path.rglob("results.json"))
    unfinished.unlink()
    with in_language(CHINESE):
        compare_results([str(tmp_path / "runs")])
    told = capsys.readouterr().err
    assert f"警告：{unfinished.parent}：未完成" in told and "warning:" not in told


def test_without_a_font_of_chinese_letters_plots_are_in_english_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("core.drawing.CJK", ())
    demo(tmp_path / "runs")
    with in_language(CHINESE):
        found = compare_results([str(tmp_path / "runs")])
        page = report.render(found, "x")
        assert language.current() == CHINESE and plots.plot_language() == "en"
    said = "图中文字为英文：没有安装中文字体；请安装一种（如 fonts-noto-cjk，见 tuneyard doctor）。"
    assert said in capsys.readouterr().err
    assert re.findall("<p class=.note.>(.*?)</p>", page)[1:] == [said]


def test_a_metric_has_chinese_tables_and_a_verdict(tmp_path: Path) -> None:
    demo(tmp_path / "runs")
    done = CliRunner().invoke(
        compare.cli,
        [str(tmp_path / "runs"), "--lang", "zh", "--metric", "brier", "--out", str(tmp_path / "c")],
    )
    assert done.exit_code == 0
    assert "| brier（平方误差，越低越好），95 % 置信区间 |" in done.stdout
    assert (
        "## 平均\n\nmnli、merge 和 rte 在 2 个数据集（demo_mnli_eval、demo_rte_eval）的平均 brier 上"
        in done.stdout
    )
    assert "；默认：mnli（平均值最低）。\n\n采用 mnli：brier 0.3" in done.stdout
