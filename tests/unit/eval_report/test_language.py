"""Tables, plots, verdicts and the page are in the language of their reader; files for programs are not."""

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from matplotlib.text import Text

from tests.cli.scoring import call, invoke
from tests.fake_runs import answers, demo, page_of, write_run
from tests.json_files import read_json, write_json
from tests.messages import raises
from tests.unit.adapters.test_plots import adapter
from tuneyard.adapters.kinds.dora import DoraStatistics
from tuneyard.adapters.show import statistics
from tuneyard.adapters.show.plots import draw as draw_adapters
from tuneyard.core.drawing import plots as drawing
from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import counted, listed, tr, translated
from tuneyard.core.language.reader import CHINESE, ENGLISH, current, in_language
from tuneyard.core.training import metrics
from tuneyard.eval import suite
from tuneyard.eval.compare import __main__ as compare
from tuneyard.eval.compare.__main__ import compare_results
from tuneyard.eval.defect.__main__ import write_defects
from tuneyard.eval.judge.conclusions import Question
from tuneyard.eval.judge.questions.choice import choose_on_half
from tuneyard.eval.judge.questions.slices import by_slices
from tuneyard.eval.report.findings import sentence
from tuneyard.eval.report.html import terms
from tuneyard.eval.report.tables import markdown
from tuneyard.eval.runs.find import ScoredRunSource
from tuneyard.eval.runs.logs.defect import DETAILED
from tuneyard.eval.sweep import __main__ as eval_sweep
from tuneyard.eval.sweep.points import Axes
from tuneyard.recipes.best import __main__ as best
from tuneyard.recipes.sweep import results
from tuneyard.recipes.sweep.grid import Grid

pytestmark = pytest.mark.usefixtures("unrendered")
WORD = re.compile(r"[A-Za-z]{2,}")
MARKS = re.compile(r"<(style|script)\b.*?</\1>|<[^>]*>", re.DOTALL)


def english_words(text: str) -> set[str]:
    """Words of Latin letters in a text, in lower case."""
    return {word.lower() for word in WORD.findall(text)}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts of all plots that a test draws, in Chinese too, whatever fonts are installed."""
    texts: list[str] = []
    set_text = Text.set_text

    def watched(text: Text, words: Any) -> None:
        texts.append(words or "")
        set_text(text, words)

    monkeypatch.setattr(Text, "set_text", watched)
    monkeypatch.setattr(drawing, "has_font_for", lambda _letters: True)
    return texts


NAMES = {
    *("base", "type", "subtype", "question", "yes", "no", "why"),  # of the data
    *("brier", "points", "label", "mass", "label_mass", "macro", "ece", "max", "mid", "mcnemar"),
    *("replicates", "csv", "javascript", "lt"),
}
"""Names of data, figures, options and formats, which are the same in both languages; `lt` is that of <."""


def test_no_text_of_a_comparison_lacks_its_chinese(tmp_path: Path, drawn: list[str]) -> None:
    """Pages, tables, plots and warnings have no English word but names."""
    gold = ["yes", "no"] * 40
    kinds = {"type": ["x", "y"] * 40, "subtype": [f"k{n // 3}" for n in range(80)]}
    for seed, (model, right) in enumerate([("base", 50), ("a", 70), ("b", 72), ("c", 20)]):
        for name in "st":
            groups = [str(n // 2) for n in range(80)] if name == "s" else None
            metric = {"brier": {"value": 0.5, "n": 80, "unit": "points", "higher_is_better": name == "s"}}
            trained = {"examples": 80 - seed, "sources": [], "same_name": ["x"], "not_checked": ["why"]}
            write_run(
                tmp_path / "runs", model, name, gold, answers(gold, right, seed), groups, kinds,
                metrics=metric, trained_on=trained if seed in (0, 1) else None,
            )  # fmt: skip
    texts: list[str] = []
    with in_language(CHINESE):
        for choose in (False, True):
            questions: list[Question] = [choose_on_half] if choose else []
            recipes = {} if choose else {"x": ["a", "b"]}
            questions.append(partial(by_slices, by="type"))
            compared = compare_results(
                [ScoredRunSource(tmp_path / "runs")], questions, margin=0.05, recipes=recipes
            )
            page, _provenance = page_of(compared).split('<details id="provenance">')
            texts += [MARKS.sub(" ", page), markdown(compared.comparison)]
            texts += [translated(sentence(finding)) for finding in compared.findings]
        for metric in ("brier", "label_mass"):
            compared = compare_results([ScoredRunSource(tmp_path / "runs")], metric=metric)
            texts.append(markdown(compared.comparison))
    assert "基座" in page and len(drawn) > 100
    titles = " ".join(drawn)
    assert "按类型" in titles and "按子类型" in titles
    assert english_words(" ".join([*texts, *drawn])) - NAMES == set()


@pytest.mark.usefixtures("without_plots")
def test_warnings_in_json_are_english_and_those_of_the_reader_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """table.json is for programs: the same in every language, with warnings of every kind in it."""
    gold = ["yes", "no"] * 20
    for model, right in (("base", 20), ("a", 30), ("b", 33)):
        trained = {"examples": 40, "sources": ["training.json"], "same_name": ["x"], "not_checked": ["why"]}
        groups = [str(n // 10) for n in range(40)]
        source = tmp_path / "runs"
        write_run(
            source, model, "s", gold, answers(gold, right, 1), groups,
            trained_on=trained if model != "base" else None,
        )  # fmt: skip
    write_run(tmp_path / "runs", "b", "t", gold, gold)
    (tmp_path / "runs/b/t/results.json").unlink()
    tables = {}
    for name in (ENGLISH, CHINESE):
        arguments = [tmp_path / "runs", "--replicates", "x=a,b", "--lang", name, "--out", tmp_path / name]
        call(compare.cli, *arguments)
        tables[name] = (tmp_path / name / "table.json").read_text(encoding="utf-8")
        printed = capsys.readouterr().err
        for warning in json.loads(tables[name])["warnings"]:
            assert warning.isascii()
            assert (f"warning: {warning}\n" in printed) == (name == ENGLISH)
    english, chinese = (json.loads(tables[name]) for name in (ENGLISH, CHINESE))
    for table in (english, chinese):  # the state of the comparison: hashes of its pages, and their language
        assert table.pop("inputs") and table.pop("outputs")
    assert english == chinese
    warnings = "\n".join(json.loads(tables[CHINESE])["warnings"])
    for part in (
        "left out, unfinished",
        "fewer than 6 clusters (4 here)",
        "s: a was trained on 40 of these 40 examples (training.json): this is training accuracy",
        "a: training examples not checked: why",
        "the interval over 2 seeds",
    ):
        assert part in warnings
    assert "警告：" in printed and "warning:" not in printed


def test_a_unit_of_a_results_json_is_translated_if_it_is_one_of_ours() -> None:
    figure = {"value": 0.5, "n": 1, "higher_is_better": False}
    with in_language(CHINESE):
        for unit, chinese in (("squared error", "平方误差"), ("rows", "行"), ("3 rows", "3 rows"), ("", "")):
            metric = metrics.declared_metric("mine", {**figure, "unit": unit})
            assert metrics.direction("mine", metric) == f"mine（{chinese}，越低越好）"


def test_names_are_listed() -> None:
    assert listed(["a"]) == "a" and listed(["a", "b", "c"]) == "a, b and c"
    with in_language(CHINESE):
        assert translated(listed(["a", "b", "c"])) == "a、b 和 c" and tr("no such text") == "no such text"


PLURAL_OF_ONE = re.compile(r"(?<![\d.,−+(])\b1 (?:independent )?(?!is |has |was )[a-z]+s\b")


@pytest.mark.parametrize("groups", [["g"], None])
def test_one_of_a_thing_is_no_plural(groups: list[str] | None, tmp_path: Path) -> None:
    """A page, its tables and the warnings of a single example in a single cluster."""
    kinds = {"type": ["x"], "subtype": ["y"]}
    trained = {"examples": 1, "sources": [], "same_name": [], "not_checked": []}
    for model, answer in (("base", "no"), ("a", "yes")):
        write_run(
            tmp_path / "runs", model, "s", ["yes"], [answer], groups, kinds,
            trained_on=trained if model == "a" else None,
        )  # fmt: skip
    found = compare_results([ScoredRunSource(tmp_path / "runs")])
    page = page_of(found)
    assert json.loads(page[page.index('<script type="application/json"') :].split(">", 1)[1].split("<")[0])
    text = re.sub(r"<(style|script)\b.*?</\1>|<[^>]*>", " ", page, flags=re.S)
    text += markdown(found.comparison) + " ".join(map(sentence, found.findings))
    assert "1 example in 1 cluster." in text or "1 independent example." in text
    assert (
        "1 example that at least one model got wrong" in text and "trained on 1 of these 1 example:" in text
    )
    assert PLURAL_OF_ONE.findall(text) == []
    for number in (0, 1, 2, 1500):
        singular = number == 1
        assert counted(number, "example", "examples") == f"{number:,} example{'' if singular else 's'}"
        with in_language(CHINESE):
            assert translated(counted(number, "example", "examples")) == f"{number:,} 个样本"


def test_a_term_of_the_glossary_is_no_noun_of_a_number() -> None:
    """`4 个聚类` has the term 聚类, whose meaning follows: the measure word belongs to the number."""
    with in_language(CHINESE):
        assert [name for name, _meaning in terms("共 20 个样本，分属 4 个聚类。")] == ["聚类"]


def test_a_chinese_page_and_table(tmp_path: Path) -> None:
    demo(tmp_path / "runs", settings={"rows": "halves", "template": None})
    done = invoke(compare.cli, tmp_path / "runs", "--lang", "zh", "--out", tmp_path / "c")
    page = (tmp_path / "c/report.html").read_text(encoding="utf-8")
    assert done.exit_code == 0 and '<html lang="zh-CN">' in page
    plain = re.sub("<.*?>", "", page)
    assert (
        "建议采用 mnli：83.5%，基座模型为 41.7%。它优于排在第二的 merge（+7.8 个百分点，p = 0.004）。"
        in plain
    )
    for term in ("置信区间", "配对检验", "多数类基线", "错误样本", "由错变对", "由对变错", "template null"):
        assert term in plain
    page = re.sub("<svg.*?</svg>", "", page, flags=re.S)  # in English where no font has Chinese letters
    for english in (">Verdict<", "interval)", "majority-class", "examples that", "&nbsp;%"):
        assert english not in page[: page.index('<script type="application/json"')]
    assert done.stdout.startswith("建议采用 mnli：83.5%，基座模型为 41.7%。")
    text = (tmp_path / "c/table.md").read_text(encoding="utf-8")
    assert "## 平均\n\nmnli 与基座模型的差为 +41.8 个百分点" in text


def test_without_a_font_of_chinese_letters_plots_are_in_english_and_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tuneyard.core.drawing.plots.CJK", ())
    write_run(tmp_path / "runs", "base", "s", ["yes", "no"], ["yes", "yes"])
    with in_language(CHINESE):
        found = compare_results([ScoredRunSource(tmp_path / "runs")])
        page = page_of(found)
        assert current() == CHINESE and drawing.plot_language() == "en"
    said = "图中文字为英文：没有安装中文字体；请安装一种（如 fonts-noto-cjk，见 tuneyard doctor）。"
    assert said in capsys.readouterr().err
    assert re.findall("<p class=.note.>(.*?)</p>", page).count(said) == 1


LOSS = metrics.metric_of("eval_loss")
CURVES = ([3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [1.0])  # each has advice of its own


def defect_files(folder: Path) -> list[object]:
    """Write what eval.defect writes of a run, and return its detailed results."""
    rows = []
    for number in range(12):
        right = number % 3 > 0
        rows.append(
            {
                "row": number, "instruction": "x", "subtype": f"crack {number % 2}", "correct": right,
                "expected_output": "bad", "predicted_output": "bad" if right else "good", "model_output": "y",
            }
        )  # fmt: skip
    share = {"value": 0.5, "n": 6, "ci95": [0.2, 0.8]}
    figures = {
        "accuracy": 0.6667, "n": 12, "ci95": [0.4, 0.9], "unparsed": 0, "types": {},
        "subtypes": {"crack 0": share, "crack 1": share},
    }  # fmt: skip
    target = folder / "mine/defect_test"
    target.mkdir(parents=True)
    write_defects(target, rows, figures)
    return [read_json(target / DETAILED)]


def sweep_files(folder: Path) -> list[object]:
    """Write what eval.sweep writes over weights and over steps, and return its points.json files."""
    gold = ["yes", "no"] * 6
    facts = []
    for axes, points in (
        (["r", "m"], {"base": (0.0, 0.0), "r=1,m=1": (1.0, 1.0), "r=1,m=0": (1.0, 0.0)}),
        (["step"], {"base": (0.0,), "step-5": (5.0,), "step-9": (9.0,)}),
    ):
        out = folder / axes[0]
        for seed, model in enumerate(points):
            for name in "st":
                for half in (out, out / "held-out"):
                    write_run(half, model, name, gold, answers(gold, 6 + seed, seed))
        for metric in ("accuracy", "brier"):
            rows = {"s": [*range(12)], "t": [*range(12)]}
            of_sweep = Axes("base", axes, points, {})
            sweep = eval_sweep.Sweep(out, of_sweep, rows, metric, reported=list(points))
            runs, held_out = eval_sweep.read_points(sweep), eval_sweep.read_reported(sweep)
            eval_sweep.write(sweep, eval_sweep.judge(sweep, runs, held_out))
        facts.append(read_json(out / "points.json"))
    return facts


def adapter_files(folder: Path) -> list[object]:
    """Write and print what `adapter show` does of adapters of each kind."""
    plain = replace(adapter("one"), config={"peft_type": "LORA"})
    embedding = replace(plain.modules[0], kind="embedding", target="embed_tokens")
    embedding = DoraStatistics(**asdict(embedding), magnitude=(0.5, 1.5))
    settings = {"peft_type": "LORA", "use_dora": True, "r": 2}
    full = replace(plain, name="two", modules=[embedding], full_tensors=["lm_head"], config=settings)
    draw_adapters(folder / "plots", [plain, full], [[1.0, 0.5], [0.5, 1.0]])
    list(statistics.text([plain, full], [[1.0, None], [None, 1.0]]))
    return [asdict(plain)]


def recipe_files(folder: Path) -> list[object]:
    """Write what `recipe sweep` and `recipe best` write, and return their figures."""
    facts: list[object] = []
    for values in CURVES:
        curve = [(10 * number, value) for number, value in enumerate(values, 1)]
        found = best.find_best(curve, "eval_loss", folder, LOSS)
        facts.append(asdict(found))
        write_json(
            folder / "trainer_state.json",
            {"log_history": [{"step": step, "eval_loss": value} for step, value in curve]},
        )
        invoke(best.command, folder, "--lang", current(), catch_exceptions=False)
    for axes in ({"seed": ["1", "2"]}, {"lora_rank": ["4", "8"], "seed": ["1"]}):
        grid = Grid(axes, {"max_steps": "9"})
        rows: list[dict[str, Any]] = []
        for point in itertools.product(*axes.values()):
            rows.append({**dict(zip(axes, point, strict=True)), "eval_loss": float(len(rows))})
        results.table(rows, grid, "eval_loss", LOSS)
        results.plot(rows, axes, "eval_loss", LOSS, folder / "sweep.png")
    return facts


@pytest.mark.parametrize(
    ("write", "names"),
    [
        (defect_files, "mine defect test crack"),
        (sweep_files, "brier"),
        (adapter_files, "one two embed tokens proj frobenius"),
        (recipe_files, "eval loss lora rank seed"),
    ],
)
def test_every_plot_and_table_has_its_chinese_and_the_same_figures(
    write: Callable[[Path], list[object]], names: str, tmp_path: Path, drawn: list[str]
) -> None:
    folders = {name: tmp_path / name for name in ("en", CHINESE)}
    figures = {}
    for name, folder in folders.items():
        folder.mkdir()
        with in_language(name):
            figures[name] = write(folder)
            if name == "en":
                drawn.clear()
    assert english_words(" ".join(drawn)) - {*names.split()} == set()
    assert figures["en"] == figures[CHINESE]
    written = [{path.relative_to(folder) for path in folder.rglob("*")} for folder in folders.values()]
    assert written[0] == written[1]


def test_a_text_that_no_font_can_write_is_reported_once_in_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tuneyard.core.drawing.plots.CJK", ())
    with click.Context(best.command), in_language(CHINESE):
        adapter_files(tmp_path)
    assert capsys.readouterr().err.count("fonts-noto-cjk") == 1


def test_a_plot_without_chinese_letters_has_no_chinese_title(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The title of a sweep is the decision. A text that no font has is numbered, and listed in a .txt."""
    monkeypatch.setattr("tuneyard.core.drawing.plots.CJK", ())
    with in_language(CHINESE):
        sweep_files(tmp_path)
    assert list(tmp_path.rglob("*.png")) and not list(tmp_path.rglob("*.txt"))


def test_a_suite_has_one_language_for_all_steps(tmp_path: Path) -> None:
    path = tmp_path / "suite.yaml"
    path.write_text("loss:\n  command: text\n  data: rows.json\n")
    with in_language(CHINESE):
        (step,) = suite.read_steps(path, [])
        assert step.name == "loss" and current() == CHINESE
        header = suite.steps_table({"loss": {}}, ["base"]).header
    assert header[0] == "指标（95% 置信区间）"
    path.write_text("loss:\n  command: text\n  data: rows.json\n  lang: zh\n")
    with raises(ContentError, "lang"):
        suite.read_steps(path, [])
