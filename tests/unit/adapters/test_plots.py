"""Pictures of adapters: what stands on them, in which colour, and whether it is within the picture."""

from pathlib import Path

import pytest

from adapters.plots import _cosine, draw
from adapters.statistics import AdapterStatistics, Histogram, ModuleStatistics
from core.drawing import choose_typeface


def test_cosines_are_readable_on_dark_cells_and_the_colour_bar_is_whole() -> None:
    with choose_typeface([]).used():
        figure = _cosine(["a", "a long name of an adapter"], [[1.0, -0.1], [-0.1, None]])
        figure.draw_without_rendering()
        heat, bar = figure.axes
        edge = bar.get_tightbbox()
    told = [(text.get_text(), text.get_color()) for text in heat.texts]
    assert told == [("1.00", "white"), ("-0.10", "black"), ("-0.10", "black"), ("–", "black")]
    assert (
        edge is not None and edge.x1 <= figure.bbox.width and edge.y0 >= 0 and edge.y1 <= figure.bbox.height
    )
    assert heat.get_window_extent().width > 80  # pixels: the long name leaves room for the cells


def test_names_that_no_font_has_are_numbered_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("core.drawing.CJK", ())
    module = ModuleStatistics("m", 0, "q_proj", "attention", 4, 4, 2, 1.0, 1.0, 1.5, [1.0, 0.5])
    counts = [Histogram("q_proj", side, 1.0, [1, 2]) for side in "AB"]
    found = AdapterStatistics("适配器", "d", "s", None, ["F32"], 2, 10, [], {}, [module], 16, 1.0, counts)
    written = draw(tmp_path, [found], [[1.0]])
    assert [path.name for path in written] == ["norms.png", "spectrum.png", "values-适配器.png"]
    assert "plots: #1 is 适配器, which no installed font can write" in capsys.readouterr().err
