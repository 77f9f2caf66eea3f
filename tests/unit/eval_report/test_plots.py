"""Plots: the pixels are looked at by people; what is tested is what stands on them and in which letters."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.text import Text

from tests.cli.scoring import call
from tests.conftest import ROOT
from tests.fake_runs import NEW, OLD, by_dataset, compare, fake_run, labelled, two_datasets, write_run
from tuneyard.core.drawing import plots as drawing
from tuneyard.core.drawing.plots import (
    CJK,
    fonts,
    has_font_for,
    number_unreadable,
    plotting,
    save,
)
from tuneyard.core.language.messages import one_command
from tuneyard.eval.compare.__main__ import cli
from tuneyard.eval.report.plots import (
    DARKEST,
    PALE,
    STUB,
    Chart,
    _commonest_error,
    _matrix,
    _plots,
    accuracy_chart,
    draw_bars,
    draw_confusion,
    draw_plots,
    folder_names,
    kinds_chart,
)
from tuneyard.eval.runs.results import COMPARED
from tuneyard.eval.statistics.rates import wilson

CHINESE = Chart(
    "网络 ahead",
    ["网络 (n = 2)", "主机"],
    {"基座": [(0.5, 0.1, 0.9), None], "b": [(1, 0.3, 1), (0, 0, 0.4)]},
    [0.5, 0.6],
)


def draw(chart: Chart, folder: Path) -> Figure:
    with plotting():
        figure = draw_bars(chart)
        save(figure, folder / "0.png")
    return figure


def test_letters_that_no_font_has_are_numbered_and_listed_beside_the_plot(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    recwarn: pytest.WarningsRecorder,
) -> None:
    monkeypatch.setattr(drawing, "CJK", ())
    with one_command():
        draw(CHINESE, tmp_path)
        draw(replace(CHINESE, places=["网络", "主页\t"]), tmp_path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: ") and "fonts-noto-cjk" in line
    listed = (tmp_path / "0.txt").read_text(encoding="utf-8").splitlines()
    texts = [each.split(" ", 1)[1] for each in listed]
    assert [each.split(" ", 1)[0] for each in listed] == [f"[{n}]" for n in range(1, len(listed) + 1)]
    assert {"网络", "主页\t"} <= set(texts) and len(set(texts)) == len(texts)
    assert UserWarning not in {warning.category for warning in recwarn}  # matplotlib's own


def test_a_figure_without_its_letters_has_numbers_in_every_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "CJK", ())
    with plotting():
        figure = draw_bars(CHINESE)
        texts = number_unreadable(figure)
        figure.draw_without_rendering()
        shown = [text.get_text() for text in figure.findobj(Text)]
    assert texts and all(has_font_for(text.replace("\n", "")) for text in shown)
    assert any(text.startswith("[") for text in shown)
    assert number_unreadable(figure) == []


def test_an_installed_cjk_font_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    (latin, *chinese), _ = fonts(CJK)
    if not has_font_for("网络主机基座"):
        pytest.skip("no CJK font is installed")
    assert latin == "DejaVu Sans" and chinese and set(chinese) <= set(CJK)
    draw(CHINESE, tmp_path)
    assert UserWarning not in {warning.category for warning in recwarn} and capsys.readouterr().err == ""


def test_a_font_installed_after_matplotlib_cached_its_list_is_found(tmp_path: Path) -> None:
    letters = "\ue5a0\ue5a1"  # for private use: in no other font
    program = (
        f"from tuneyard.core.drawing.plots import *\n"
        f"print('SimHei' in fonts(CJK)[0], has_font_for({letters!r}))"
    )
    places = {"XDG_DATA_HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path / "cache")}

    def with_fonts() -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, env={**os.environ, **places}, cwd=ROOT, text=True, stdout=-1).stdout

    assert with_fonts() == "False False\n"
    (tmp_path / "fonts").mkdir()
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "one", "two"])
    font.setupCharacterMap(dict(zip(map(ord, letters), ("one", "two"), strict=True)))
    font.setupGlyf(dict.fromkeys([".notdef", "one", "two"], TTGlyphPen(None).glyph()))
    font.setupHorizontalMetrics(dict.fromkeys([".notdef", "one", "two"], (500, 0)))
    font.setupHorizontalHeader()
    font.setupNameTable({"familyName": "SimHei", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(tmp_path / "fonts/simhei.ttf")
    assert with_fonts() == "True True\n"


def test_dollars_are_no_mathematics_and_long_names_leave_the_bars_their_room(tmp_path: Path) -> None:
    places = ["a$b$ \\frac_of_a_dataset_with_quite_a_long_name"]
    chart = Chart("$x_", places, {"$\\nonsense{$-instruct-lora-checkpoint-20000": [(0.5, 0.1, 0.9)]})
    assert draw(chart, tmp_path).axes[0].get_window_extent().width > 400


def test_the_title_says_the_finding() -> None:
    found = compare([fake_run("base", OLD), fake_run("a", NEW)], "base")
    chart = accuracy_chart(found, found.sections)
    assert chart.title.startswith("Ship a: 70.0 %, against 45.0 % for the base.")
    assert chart.places == ["s\nn = 100"] and chart.baselines == []
    assert chart.series == {"base": [(0.45, *wilson(45, 100))], "a": [(0.7, *wilson(70, 100))]}


def test_the_title_of_several_sets_is_on_their_mean() -> None:
    found = compare([*two_datasets(), fake_run("b", NEW, "t")], "base")
    chart = accuracy_chart(found, found.sections)
    assert chart.title.startswith("Ship a: 70.0 %, against 45.0 % for the base.")
    assert [len(shares) for shares in chart.series.values()] == [3, 3, 3] and chart.series["b"][0] is None


def test_kinds_are_counted_the_most_common_first() -> None:
    kinds = [{"subtype": "b"}] * 3 + [{"subtype": "a"}] * 5
    run = replace(fake_run("m", [True] * 7 + [False]), records=kinds)
    chart = kinds_chart([run], "subtype")
    assert chart.places == ["a (n = 5)", "b (n = 3)"] and chart.title == "Accuracy by subtype"
    assert chart.series["m"] == [(0.8, *wilson(4, 5)), (1.0, *wilson(3, 3))]


def test_each_of_108_kinds_has_its_bar() -> None:
    """As many as the subtypes of the defect guide. One of them is called as the rest was called before."""
    names = ["others", *(f"网络 {number:03}" for number in range(107))]
    run = replace(fake_run("m", [True, False] * 108), records=[{"subtype": name} for name in names * 2])
    chart = kinds_chart([run, run], "subtype")
    assert sorted(chart.places) == sorted(f"{name} (n = 2)" for name in names)


@pytest.mark.parametrize(("kinds", "models"), [(150, 1), (151, 1), (2000, 12), (2000, 40)])
def test_a_picture_of_any_number_of_kinds_can_be_written(kinds: int, models: int) -> None:
    """A PNG holds 65,535 pixels in each direction: 436 inches of 150 pixels."""
    names = [f"kind {number:04}" + " long name" * 30 for number in range(kinds)]
    run = replace(fake_run("m", [True] * kinds), records=[{"subtype": name} for name in names])
    runs = [replace(run, model=f"model {number}") for number in range(models)]
    chart = kinds_chart(runs, "subtype")
    with plotting():
        width, height = draw_bars(chart).get_size_inches()
    assert height < 302 and width < 16
    rows = [int(place.rpartition("n = ")[2].rstrip(")").replace(",", "")) for place in chart.places]
    assert sum(rows) == kinds
    if kinds == 150:
        assert set(rows) == {1} and chart.title == "Accuracy by subtype"
    if kinds == 151:
        assert chart.places[-1] == "2 others (n = 2)"
        assert chart.title == "Accuracy by subtype: the 149 most common of 151, the others in one bar"


def test_the_overall_comparison_of_two_models_has_a_bar_with_an_interval_for_each() -> None:
    records = [{"type": "x"}, {"type": "y"}] * 50
    runs = [replace(fake_run(model, right), records=records) for model, right in (("base", OLD), ("a", NEW))]
    plots = {name: draw for name, _, _, draw in _plots(compare(runs, "base"), by_dataset(runs))}
    (axes,) = plots["overall_accuracy_comparison.png"]().axes
    assert [text.get_text() for text in axes.texts] == ["70.0", "45.0"]
    widths = [round(bar.get_path().get_extents(bar.get_patch_transform()).width, 9) for bar in axes.patches]
    assert widths == [70, 45]
    whiskers = [container for container in axes.containers if isinstance(container, ErrorbarContainer)]
    assert len(whiskers) == 2


def test_the_recommended_model_is_highlighted_and_the_base_is_a_line() -> None:
    found = compare([fake_run("base", OLD), fake_run("a", NEW), fake_run("b", [False] * 100)], "base")
    (axes,) = draw_bars(accuracy_chart(found, found.sections)).axes
    widths = [round(bar.get_path().get_extents(bar.get_patch_transform()).width, 9) for bar in axes.patches]
    assert widths == [70, STUB]  # a bar of 0 % is seen
    assert [bar.get_alpha() for bar in axes.patches] == [1, PALE]
    assert any(line.get_label() == "base" and set(np.array(line.get_xdata())) == {45} for line in axes.lines)
    assert [text.get_text() for text in axes.texts] == ["70.0", "0.0"]
    _, labels = axes.get_legend_handles_labels()
    assert labels == ["base", "a (recommended)", "b"]
    kept = compare([fake_run("base", OLD), fake_run("b", [False] * 100)], "base")
    (axes,) = draw_bars(accuracy_chart(kept, kept.sections)).axes
    assert axes.get_legend_handles_labels()[1][0] == "base (recommended)"


@pytest.mark.usefixtures("unrendered")
def test_a_plot_is_drawn_once_for_the_folder_and_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for model, said in (("base", ["no"] * 20), ("a", ["yes", "no"] * 10)):
        write_run(tmp_path / "runs", model, "s", ["yes", "no"] * 10, said)
    drawn: list[Chart] = []

    def draw_and_count(chart: Chart) -> Figure:
        drawn.append(chart)
        return draw_bars(chart)

    monkeypatch.setattr("tuneyard.eval.report.plots.draw_bars", draw_and_count)
    call(cli, tmp_path / "runs", "--out", tmp_path / "out")
    assert len(drawn) == 1
    page = (tmp_path / "out/report.html").read_text(encoding="utf-8")
    assert (tmp_path / "out/accuracy.png").is_file() and page.count("<svg ") == 2


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize(
    ("gold", "facts", "plots"),
    [
        ([f"text {number}" for number in range(21)], {}, ["accuracy.png"]),
        ([f"text {number}" for number in range(8)], {}, ["accuracy.png"]),  # each answer to its own question
        (["A long sentence of a reference that is repeated.", "yes"] * 4, {}, ["accuracy.png"]),
        ([f"{number}" for number in range(12)] * 2, {}, ["accuracy.png", "confusion.png"]),
        ([f"{number}" for number in range(13)] * 2, {}, ["accuracy.png"]),
        (["It follows.", "It does not follow."], {"classes": {}}, ["accuracy.png", "confusion.png"]),
        ([f"{number}" for number in range(13)], {"classes": {}}, ["accuracy.png"]),
    ],
)
def test_a_matrix_is_for_labels_that_can_be_read_in_it(gold, facts, plots) -> None:
    """Answers are labels if they are few, short and repeated, or if the scoring command chose from them."""
    runs = [labelled("base", gold, gold, facts=facts)]
    assert [plot.name for plot in draw_plots(compare(runs, "base"), by_dataset(runs))] == plots


def test_many_datasets_have_no_matrix() -> None:
    runs = [fake_run("base", [True, False] * 2, f"dataset {number}") for number in range(13)]
    assert [plot.name for plot in draw_plots(compare(runs, "base"), by_dataset(runs))] == ["accuracy.png"]


def test_a_matrix_names_the_commonest_error() -> None:
    assert _commonest_error({("yes", "no"): 2, ("no", "yes"): 1}) == "yes answered as no 2 times"
    assert _commonest_error({("no", "no"): 9}) == "no error"


HOSTILE_SETS = (
    "..", "", "a/b", "a:b", "/etc", "集 合", ".hidden", "-rf", "x" * 300, "x" * 299 + "y", "集" * 200, "a\0b",
    "report.html", "table.json", "accuracy.png", "run.json",
)  # fmt: skip


def test_sets_name_folders_inside_out() -> None:
    names = folder_names(HOSTILE_SETS)
    assert list(names) == list(HOSTILE_SETS) and len(set(names.values())) == len(HOSTILE_SETS)
    for name in names.values():
        assert len(Path(name).parts) == 1 and not name.startswith((".", "/", "-"))
        assert len(name.encode()) < 150 and name not in (*COMPARED, "accuracy.png", "run.json")


def test_a_matrix_names_its_axes_and_gives_no_share_to_an_empty_cell() -> None:
    gold, said = ["yes", "yes", "no"], ["yes", "no", "no"]
    run = labelled("m", gold, said)
    axes = Figure((4, 4)).add_subplot()
    _matrix(axes, run, ["no", "yes"], ["no", "yes"])
    assert [text.get_text() for text in axes.texts] == ["1\n100 %", "0", "1\n50 %", "1\n50 %"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "expected (shares are of its row)")
    assert axes.images[0].get_clim() == (0, DARKEST)  # so that panels have one scale of colours
    # letters have a contrast of 4.5 on the darkest cell, also in a dark page's colours
    assert min(axes.images[0].cmap(1 / DARKEST)) > 0.46


@pytest.mark.parametrize("classes", [2, 20])
def test_a_matrix_has_room_for_the_share_in_each_of_its_cells(classes: int) -> None:
    labels = [f"label {number:02}" for number in range(classes)]
    figure = draw_confusion([labelled("m", labels, labels)])
    (axes,) = figure.axes
    box = axes.get_window_extent()
    shares = [text.get_window_extent() for text in axes.texts]
    assert box.height / classes > max(share.height for share in shares)
    assert box.width / classes > max(share.width for share in shares)


def test_five_matrices_leave_no_empty_panels() -> None:
    assert len(draw_confusion([labelled("m", ["yes"], ["no"])] * 5).axes) == 5


def test_all_plots_have_one_style_whatever_the_readers_matplotlib_is_set_to() -> None:
    import matplotlib

    with matplotlib.rc_context({"axes.spines.top": True, "savefig.dpi": 30}), plotting():
        assert not matplotlib.rcParams["axes.spines.top"] and matplotlib.rcParams["savefig.dpi"] == 150
        assert matplotlib.rcParams["axes.prop_cycle"].by_key()["color"][0] == "#0072B2"
    rooms = ("compiler", "recipes", "adapters", "eval")
    saving = [
        path for room in rooms for path in (ROOT / room).rglob("*.py") if "savefig(" in path.read_text()
    ]
    assert saving == []  # one place writes plots


@pytest.mark.usefixtures("unrendered")
@pytest.mark.parametrize("sets", [["s"], ["s", "../t"]])
def test_which_plots_are_drawn(sets: list[str]) -> None:
    kinds = [{"type": "x"}, {"type": "y"}] * 10
    gold = ["yes", "no"] * 10
    runs = [
        labelled(model, gold, said, name, records=kinds, confidence=sure)
        for name in sets
        for model, said, sure in [("base", ["no"] * 20, None), ("a", gold, [0.9] * 20)]
    ]
    drawn = draw_plots(compare(runs, "base"), by_dataset(runs))
    folders = ["" if len(sets) == 1 else f"{folder_names(sets)[name]}/" for name in sets]
    names = [
        "overall_accuracy_comparison.png", "type_accuracy_comparison.png",  # there is no subtype
        "confusion.png",
    ]  # fmt: skip
    drawn_names = [plot.name for plot in drawn]
    assert drawn_names == ["accuracy.png", *(folder + name for folder in folders for name in names)]
    for one in drawn:
        assert one.png.startswith(b"\x89PNG")
        drawn_by_the_page = one.name.endswith(("accuracy.png", "overall_accuracy_comparison.png"))
        assert ("<svg " in one.svg) != drawn_by_the_page
