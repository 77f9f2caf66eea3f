"""Pictures of adapters: what stands on them, in which colour, and whether it is within the picture."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.messages import raises
from tuneyard.adapters.plots import _cosine, cosine_size, draw, is_one_file
from tuneyard.adapters.statistics import AdapterStatistics, Histogram, ModuleStatistics
from tuneyard.core.drawing.plots import plotting
from tuneyard.core.errors import RequestError


def adapter(name: str) -> AdapterStatistics:
    """An adapter with one module of rank 2."""
    module = ModuleStatistics("m", 0, "q_proj", "attention", 4, 4, 2, 1.0, 1.0, 1.5, [1.0, 0.5])
    counts = [Histogram("q_proj", side, 1.0, [1, 2]) for side in "AB"]
    return AdapterStatistics(name, "d", "s", None, ["F32"], 2, 10, [], {}, [module], 16, 1.0, counts)


def test_cosines_are_readable_on_dark_cells_and_the_colour_bar_is_whole() -> None:
    with plotting():
        figure = Figure(figsize=cosine_size(2))
        _cosine(["a", "a long name of an adapter"], [[1.0, -0.1], [-0.1, None]], figure)
        figure.draw_without_rendering()
        heat, bar = figure.axes
        edge = bar.get_tightbbox()
    told = [(text.get_text(), text.get_color()) for text in heat.texts]
    assert told == [("1.00", "white"), ("-0.10", "black"), ("-0.10", "black"), ("–", "black")]
    assert (
        edge is not None and edge.x1 <= figure.bbox.width and edge.y0 >= 0 and edge.y1 <= figure.bbox.height
    )
    assert heat.get_window_extent().width > 80  # pixels: the long name leaves room for the cells


def test_letters_of_names_that_no_font_has_are_numbered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tuneyard.core.drawing.plots.CJK", ())
    written = draw(tmp_path, [adapter("适配器")], [[1.0]])
    assert [path.name for path in written] == ["norms.png", "spectrum.png", "values-适配器.png"]
    assert "fonts-noto-cjk" in capsys.readouterr().err
    assert (tmp_path / "norms.txt").read_text(encoding="utf-8") == "[1] 适配器\n"


@pytest.mark.parametrize("ending", ["png", "SVG", "pdf"])
def test_a_path_that_ends_as_a_picture_is_one_file_with_all_pictures(tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"x.{ending}"
    assert draw(target, [adapter("one"), adapter("two")], [[1.0, 0.5], [0.5, 1.0]]) == [target]
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    if ending == "SVG":  # its text stays text
        drawn = target.read_text(encoding="utf-8")
        titles = ("one: largest change", "effective rank", "two: elements of B", "cosine similarity")
        assert all(title in drawn for title in titles)


def test_the_path_of_plots_is_checked_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "old.png").mkdir()
    (tmp_path / "notes").touch()
    for name in ("x.jpg", "old.png", "notes"):
        with raises(RequestError, "--plot", name):
            is_one_file(tmp_path / name)
    assert not is_one_file(tmp_path / "v1.2")
