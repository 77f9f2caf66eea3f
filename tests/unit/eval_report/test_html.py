"""The report: what is on the page, that nothing of a run becomes HTML, and how errors are chosen."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.cli.scoring import call
from tests.conftest import ROOT, render_nothing
from tests.fake_runs import answers, by_dataset, compare, demo, labelled, page_of, write_run
from tests.messages import printed, raises
from tuneyard.core.drawing.page import content_policy
from tuneyard.core.errors import ContentError
from tuneyard.core.installation.checkout import version
from tuneyard.core.language.number_format import Table
from tuneyard.core.language.reader import in_language
from tuneyard.eval.compare.__main__ import cli, compare_results
from tuneyard.eval.report.html import GLOSSARY, breakable, terms, varied
from tuneyard.eval.report.plots import draw_plots
from tuneyard.eval.report.setup import compared_datasets, compared_models, provenance
from tuneyard.eval.report.tables import LEFT_OUT
from tuneyard.eval.runs.find import ScoredRunSource
from tuneyard.eval.runs.scored_run import ScoredRun

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(2)>",
    "\"'><b>&amp;",
    "<!-- <script ",
    "]]>\u2028{{7*7}}",
]
VOID = {"meta", "img", "input", "wbr"}


class Outline(HTMLParser):
    """The elements of a page, those that were left open, and every attribute that could fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.open += [] if tag in VOID else [tag]
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        assert not [name for name, _ in attrs if name.startswith("on")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def data_of(page: str) -> dict:
    (found,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert not set("<>&") & set(found)  # whatever stands in it, no letter of it ends or opens an element
    return json.loads(found)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("runs")
    demo(folder)
    command = "tuneyard adapter merge m.yaml"
    with pytest.MonkeyPatch.context() as patch:
        render_nothing(patch)
        return page_of(
            compare_results([ScoredRunSource(folder)]), "Report on <runs>", errors=100, next_command=command
        )


def test_the_page_stands_alone_and_is_whole(page: str) -> None:
    outline = Outline(page)
    assert outline.open == [] and len(outline.ids) == len(set(outline.ids))
    assert all(fetched.startswith(("#", "data:image/svg+xml;base64,")) for fetched in outline.fetched)
    script = page.rpartition("<script>")[2].partition("</script>")[0]
    style = page.partition("<style>")[2].partition("</style>")[0]
    policy = content_policy(script, style)
    assert policy.startswith("default-src 'none'") and f'content="{policy}"' in page
    assert "Report on &lt;runs&gt;" in page


def test_the_first_screen_has_verdict_plot_and_command_then_come_table_examples_and_the_rest(
    page: str,
) -> None:
    body = page[page.index("<body>") :]
    heading = re.search(r"<h1><span>(.*?)</span></h1>", body)
    text = re.sub("<.*?>", "", heading[1]).replace("\N{NO-BREAK SPACE}", " ")
    assert text == "Ship mnli: 83.5 %, against 41.7 % for the base."  # one sentence, and no p
    marks = [
        "<nav", '<section id="verdict">', "<h1>", "<dt>the base: </dt>", '<figure class="chart"',
        "Next command:", '<section id="accuracy">', "<span>Accuracy of every model", LEFT_OUT,
        '<section id="errors">', '<section id="differences">', "<summary>mean</summary>", "p = 0.004",
        "<summary>demo_mnli_eval</summary>", "<summary>demo_rte_eval</summary>",
        '<section id="figures">', "<summary>Predicted by expected labels", '<section id="compared">',
        "<span>The models",        '<details id="provenance">',
    ]  # fmt: skip
    places = [body.index(mark) for mark in marks]
    assert places == sorted(places)
    assert "<span>tuneyard</span> <span>adapter</span> <span>merge</span> <span>m.yaml</span>" in body
    bar = body.partition("<nav")[2].partition("</nav>")[0]
    assert {link[1:] for link in re.findall('href="(.*?)"', bar)} <= set(Outline(page).ids)


def test_the_plot_has_every_model_by_accuracy_the_recommended_one_marked_and_the_base_as_a_line(
    page: str,
) -> None:
    plot = page.partition('<figure class="chart"')[2].partition("</figure>")[0]
    assert re.findall('class="model">(\\w+)', plot) == ["mnli", "merge", "rte", "base"]
    assert re.findall('<div class="best"><span class="model">(\\w+) <small>recommended', plot) == ["mnli"]
    assert plot.count('<line class="base" x1="19.44%" x2="19.44%"') == 4  # 41.67 % between 30 and 90
    circles = [float(at) for at in re.findall('<circle cx="([0-9.]+)%"', plot)]
    assert circles == sorted(circles, reverse=True)


def test_the_table_is_sorted_by_accuracy_with_the_recommended_row_marked(page: str) -> None:
    table = page.partition('<section id="accuracy">')[2].partition("</table>")[0]
    rows = re.findall(r'<tr( class="best")?><th scope="row">(.*?)</th>', table)
    assert [best + re.sub("<.*?>", "", name) for best, name in rows] == [
        ' class="best"mnli recommended', "merge", "rte", "base", "majority-class baseline"
    ]  # fmt: skip
    assert "50.0 % (44.4–55.6)" in table


def test_pairs_are_folded_and_every_pair_is_there(page: str) -> None:
    section = page.partition("<summary>mean</summary>")[2].partition("</details>")[0]
    pairs = re.findall(r'<th scope="row">(\w+ − \w+)</th>', section)
    assert pairs == ["merge − base", "mnli − base", "rte − base", "mnli − merge", "mnli − rte", "rte − merge"]
    assert "<details open" not in page.partition('<section id="differences">')[2].partition("</section>")[0]


def test_a_column_that_is_the_same_in_every_row_becomes_a_line_above_the_table() -> None:
    table = Table(["model", "base model", "n"], [["a", "m", "3"], ["b", "m", "4"]])
    assert varied(table) == (Table(["model", "n"], [["a", "3"], ["b", "4"]]), "base model: m")
    assert varied(Table(["x", "y"], [["a", "1"]])) == (Table(["x", "y"], [["a", "1"]]), "")


def test_names_break_after_their_signs_and_numbers_and_words_do_not() -> None:
    assert breakable("rte=0.5,<b>mnli=0.5") == "rte=0.5,<wbr>&lt;b&gt;mnli=0.5"
    assert breakable("合并模型（rte=1,q=0.5）：76.6%") == "合并模型（rte=1,q=0.5）：76.6%"
    assert breakable("41.7 % of 300") == "41.7\N{NO-BREAK SPACE}% of 300"
    assert breakable("lr1e-4-b") == "lr1e-\N{WORD JOINER}4-b"
    style = (ROOT / "eval/report/page/style.css").read_text(encoding="utf-8")
    for rule in re.findall(r"([^{}]+)\{[^{}]*overflow-wrap: anywhere", style):
        assert rule.strip() in (".next code", ".facts td")  # a command, and hashes


def test_what_was_compared_is_below(page: str) -> None:
    block = page.partition('<section id="compared">')[2].partition("</section>")[0]
    assert re.search(r'<p class="title">Report on &lt;runs&gt; · 20\d\d-\d\d-\d\d</p>', page)
    names = [re.sub("<.*?>", "", name) for name in re.findall(r'<tr><th scope="row">(.*?)</th>', block)]
    assert names[:6] == ["base", "merge", "mnli", "rte", "demo_mnli_eval", "demo_rte_eval"]
    assert " n: 300." in block and version()["version"] in block


def test_models_are_named_by_base_and_adapters_and_datasets_by_what_they_test() -> None:
    places = {"rte": "saves/rte", "mnli": "saves/mnli"}
    facts = {
        "base": "/srv/x/Qwen2.5-3B",
        "adapters": places,
        "about": "Inference",
        "model": "m",
        "classes": {},
    }
    models = {"base": {}, "rte": {"rte": 1.0}, "rte=0.5,mnli=0.5": {"rte": 0.5, "mnli": 0.5}}
    runs = [
        ScoredRun(
            model, "s", "results/s", ["0", "1"], ["yes", "no"], ["yes", "yes"], [True, False],
            facts={**facts, "weights": weights},
        )
        for model, weights in models.items()
    ]  # fmt: skip
    runs.append(ScoredRun("log", "s", "logs/x.jsonl", ["0", "1"], ["yes", "no"], ["no", "no"], [False, True]))
    assert compared_models(by_dataset(runs)).rows == [
        ["base", "Qwen2.5-3B", "–"],
        ["rte", "Qwen2.5-3B", "saves/rte"],
        ["rte=0.5,mnli=0.5", "Qwen2.5-3B", "saves/rte × 0.5 + saves/mnli × 0.5"],
        ["log", "results logs/x.jsonl", "–"],
    ]
    (section,) = compare(runs, "base").datasets
    assert compared_datasets(by_dataset(runs), [section]).rows == [["s", "2", "Inference; answers no, yes"]]


@pytest.mark.parametrize(
    ("tests", "cell"),
    [("tool calls", "tool calls"), ("{of} a {mailed} file", "{of} a {mailed} file"), ("", "–"), (3, "–")],
)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_dataset_without_labels_has_what_its_command_tests(language: str, tests: object, cell: str) -> None:
    run = ScoredRun("m", "s", "r", ["0"], [""], [""], [True], facts={"tests": tests})
    (section,) = compare([run, replace(run, model="base")], "base").datasets
    with in_language(language):
        ((_name, _n, tested),) = compared_datasets(by_dataset([run]), [section]).rows
    if (language, tests) == ("zh", "tool calls"):
        cell = "工具调用"
    assert tested == cell


@pytest.mark.usefixtures("without_plots")
def test_the_title_and_as_many_incorrect_examples_as_asked_for_are_on_the_page(tmp_path: Path) -> None:
    demo(tmp_path / "runs")
    words = ("--title", "Week <12>", "--errors", "3")
    call(cli, tmp_path / "runs", *words, "--out", tmp_path / "out")
    table = (tmp_path / "out/table.md").read_text(encoding="utf-8")
    assert "\n\n## Week <12>\n\n| model" in table
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert "<title>Week &lt;12&gt;</title>" in page and '<p class="title">Week &lt;12&gt; · ' in page
    assert len(data_of(page)["rows"]) == 3


def test_captions_are_sentences(page: str) -> None:
    captions = re.findall("<(?:figcaption|caption><span)>(.*?)</", page)
    assert len(captions) > 10 and all(re.match(r"[A-Z].{20,}\.$", one) for one in captions)


def test_a_term_has_its_meaning_where_it_is_read(page: str) -> None:
    assert terms("p, maps; Macro-F1, 3 clusters") == [
        (term, GLOSSARY[term]) for term in ("macro-F1", "p", "cluster")
    ]
    assert terms("maps") == []
    head = page.partition("<h1>")[2].partition("</figure>")[0]
    for term in ("the base", "accuracy", "95 % interval", "mean"):
        assert f"<dt>{breakable(term)}: </dt><dd>{GLOSSARY[term]}</dd>" in head


def test_a_fact_that_runs_share_is_one_row_of_the_provenance() -> None:
    runs = [
        ScoredRun(
            model, "s", f"/srv/x/{model}", [], [], [], [],
            facts={"dtype": "fp32", "seed": seed, "ci95": [0, 1]},
        )
        for model, seed in [("a", 1), ("b", 1), ("c", 2)]
    ]  # fmt: skip
    rows = provenance(runs, "tuneyard eval compare /srv/x").rows
    assert ["dtype", "fp32", "all"] in rows and ["seed", "1", "a on s, b on s"] in rows
    assert ["seed", "2", "c on s"] in rows and ["source", "a", "a on s"] in rows
    assert ["command", "tuneyard eval compare x", "this page"] in rows and "ci95" not in [
        row[0] for row in rows
    ]


def test_the_errors_are_those_rows_that_a_model_has_wrong(page: str) -> None:
    data = data_of(page)
    assert data["models"] == ["base", "merge", "mnli", "rte"] and len(data["rows"]) == 100
    assert [one["name"] for one in data["datasets"]] == ["demo_mnli_eval", "demo_rte_eval"]
    count = f"{data['datasets'][0]['total']:,}"
    sentences = [text for text in re.findall(r">([^<>]+)<", page) if f"{count} examples" in text]
    printed(sentences[0], count, "50")
    for row in data["rows"]:
        assert any(not answer["right"] for answer in row["answers"])
        for answer in row["answers"]:
            assert answer["right"] == (answer["predicted"] == row["expected"])
            assert 0.3 < answer["confidence"] <= 1
    assert re.search(r"\(\d+\N{NO-BREAK SPACE}%\)", page) and not re.search(r"\d %\)", page)


@pytest.mark.usefixtures("unrendered")
def test_hostile_texts_stay_texts(tmp_path: Path) -> None:
    gold = [HOSTILE[n % 5] for n in range(20)]
    for model in ("base", HOSTILE[0].replace("/", "")):
        write_run(tmp_path, model, "s<b>", gold, gold[::-1], kinds={"subtype": gold}, note=HOSTILE)
    page = page_of(compare_results([ScoredRunSource(tmp_path)]), HOSTILE[0], errors=100)
    outline = Outline(page)
    assert outline.tags.count("script") == 2 and outline.open == []
    assert {"b", "img src=x"}.isdisjoint(outline.tags) and "onerror=alert(2)>" not in page
    assert [row["expected"] for row in data_of(page)["rows"]] == [
        text for text, said in zip(gold, gold[::-1], strict=True) if text != said
    ]


def test_the_script_makes_no_html() -> None:
    script = (ROOT / "eval/report/page/script.js").read_text(encoding="utf-8")
    for danger in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "fetch(",
        "http",
    ):
        assert danger not in script


@pytest.mark.usefixtures("without_plots")
def test_models_that_lack_a_set_are_left_out_of_its_rows(tmp_path: Path) -> None:
    gold = ["yes", "no"] * 5
    write_run(tmp_path, "base", "s", gold, answers(gold, 4, 1))
    write_run(tmp_path, "base", "t", gold, answers(gold, 4, 1))
    write_run(tmp_path, "a", "t", gold, answers(gold, 4, 2))
    rows = data_of(page_of(compare_results([ScoredRunSource(tmp_path)]), errors=99))["rows"]
    assert {(row["dataset"], len(row["answers"])) for row in rows} == {(0, 1), (1, 2)}


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": 1, "gold": "\\ud800", "prediction": "a"}\n')
    with raises(ContentError, "x.jsonl", "half a character"):
        compare_results([ScoredRunSource(tmp_path / "x.jsonl")])


@pytest.mark.usefixtures("unrendered")
def test_no_path_of_the_machine_is_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is mailed: a title, a command or a warning must not tell whose folder it was made in."""
    away, here = tmp_path / "jane doe/away", tmp_path / "jane doe/here"
    gold = ["yes", "no"] * 10
    trained = {"examples": 20, "sources": [f"{away}/mine/training.json"], "same_name": [], "not_checked": []}
    facts = {
        "command": f"tuneyard eval nli --model '{away}/my base' --adapter m=/srv/x/mine --out '{here}/runs'",
        "prompt": f"{away}/base/chat_template.jinja",
        "weights": {f"{away}/mine": 0.5},
        "note": [f"see {away}", "~/secret/base", "and/or", "http://localhost:8000/v1"],
        "trained_on": {**trained, "sources": ["/srv/x/mine/training.json"]},
    }
    for model in ("base", "mine"):
        write_run(here / "runs", model, "s", gold, answers(gold, 12, 3), **facts)
    monkeypatch.chdir(here)
    out = here / "out"
    monkeypatch.setattr("sys.argv", ["compare", str(here / "runs"), f"b={away}/x y/z", "--out", str(out)])
    call(cli, here / "runs", "--out", out)
    page = (out / "report.html").read_text(encoding="utf-8")
    page = re.sub('base64,[^"]*', "", page)  # letters of a plot may spell anything
    for told in (str(tmp_path), str(Path.home()) + "/", "jane", "/srv", "secret"):
        assert told not in page, page[page.index(told) - 200 :][:400]
    assert "<title>Report on runs</title>" in page and "(training.json)" in page
    assert "tuneyard eval compare runs b=z --out out" in page
    command = "tuneyard eval nli --model &#39;my base&#39; --adapter m=mine --out runs"
    assert command in page and "and/<wbr>or" in page and "http:/<wbr>/<wbr>localhost:8000/<wbr>v1" in page


@pytest.mark.usefixtures("without_plots")
def test_answers_of_megabytes_are_cut_and_right_to_left_texts_keep_their_direction(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"id": 1, "gold": "a", "prediction": "א" * 2_500_000, "prompt": "هل؟"}) + "\n")
    page = page_of(compare_results([ScoredRunSource(path)]))
    assert len(page) < 500_000 and "… (2,498,000 more characters)" in page
    assert '<div class="question" dir="auto">هل؟</div>' in page and "<bdi>אא" in page


def test_the_same_runs_have_the_same_plots() -> None:
    """A plot with bars and one with panels: both formats of all plots are written in one place."""
    gold = ["yes", "no"] * 30
    runs = [labelled(model, gold, answers(gold, right, 3)) for model, right in (("base", 20), ("rte", 50))]
    comparison = compare(runs, "base")
    first = draw_plots(comparison, by_dataset(runs))
    assert [plot.name for plot in first] == ["accuracy.png", "confusion.png"]
    assert first == draw_plots(comparison, by_dataset(runs))


@pytest.mark.usefixtures("unrendered")
def test_names_of_digits_and_units_of_braces(tmp_path: Path) -> None:
    gold = ["yes", "no"] * 10
    metric = {"brier": {"value": 0.5, "n": 20, "unit": "{x}", "higher_is_better": True}}
    for name in ("2024", "1"):
        write_run(tmp_path, "{base}", name, gold, answers(gold, 12, 3), metrics=metric)
    page = page_of(compare_results([ScoredRunSource(tmp_path)]), "{x}")
    assert "brier ({x}, higher is better)" in page
    assert Outline(page).open == []


@pytest.mark.usefixtures("without_plots")
def test_the_page_compares_models_in_the_other_metrics_that_all_of_them_state(tmp_path: Path) -> None:
    gold = ["yes", "no"] * 30
    stated = {"brier": {"value": 0.5, "n": 60, "unit": "squared error", "higher_is_better": False}}
    for model, right in (("base", 20), ("rte", 50)):
        write_run(tmp_path / "runs", model, "d1", gold, answers(gold, right, 3), metrics=stated, label_mass=1)
        write_run(tmp_path / "more", model, "d1", gold, answers(gold, right, 3), label_mass=1)
    for folder in ("runs", "more"):
        call(cli, tmp_path / folder, "--out", tmp_path / f"{folder}-page")
    page = (tmp_path / "runs-page/report.html").read_text()
    (section,) = compare_results([ScoredRunSource(tmp_path / "runs")], metric="brier").comparison.sections
    gain = section.against_base[0]
    row = re.search(r"brier on d1 \(squared error, lower is better\)</th><td>rte − base</td><td>(\S+)", page)
    assert row and float(row[1].replace("−", "-")) == pytest.approx(gain.value, rel=0.01)
    assert "the verdict rests on accuracy" in page and "label_mass on d1" not in page
    assert "the verdict rests on accuracy" not in (tmp_path / "more-page/report.html").read_text()
