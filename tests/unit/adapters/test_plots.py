"""Pictures of adapters: what stands on them, in which colour, and whether it is within the picture."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.messages import raises
from tuneyard.adapters.model.lora import FactorStatistics
from tuneyard.adapters.show.plots import _cosine, _values, check_folder, cosine_size, draw
from tuneyard.adapters.show.statistics import AdapterStatistics, Histogram
from tuneyard.core.drawing.plots import plotting
from tuneyard.core.errors import RequestError


def adapter(name: str) -> AdapterStatistics:
    """An adapter with one module of rank 2."""
    module = FactorStatistics("m", 0, "q_proj", 16, "attention", 4, 4, 2, 1.0, 1.0, 1.5, [1.0, 0.5])
    counts = [Histogram("q_proj", side, 2.0, [1, 3]) for side in "AB"]
    return AdapterStatistics(name, "d", "s", None, ["F32"], 2, 10, [], {}, [module], 16, 1.0, counts)


def test_cosines_are_readable_on_dark_cells_and_the_colour_bar_is_whole() -> None:
    with plotting():
        figure = Figure(figsize=cosine_size(2))
        _cosine(["a", "a long name of an adapter"], [[1.0, -0.1], [-0.1, None]], figure)
        figure.draw_without_rendering()
        heat, bar = figure.axes
        edge = bar.get_tightbbox()
    assert heat.get_title(loc="left") == "cosine similarity of ΔW"
    told = [(text.get_text(), text.get_color()) for text in heat.texts]
    assert told == [("1.00", "white"), ("-0.10", "black"), ("-0.10", "black"), ("–", "black")]
    assert (
        edge is not None and edge.x1 <= figure.bbox.width and edge.y0 >= 0 and edge.y1 <= figure.bbox.height
    )
    assert heat.get_window_extent().width > 80  # pixels: the long name leaves room for the cells


def test_a_histogram_is_a_density_over_its_reach() -> None:
    figure = Figure()
    _values(adapter("a"), figure)
    densities, edges, _ = figure.axes[0].patches[0].get_data()
    assert [*densities, *edges] == [0.125, 0.375, -2.0, 0.0, 2.0]


def test_letters_of_names_that_no_font_has_are_numbered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tuneyard.core.drawing.plots.CJK", ())
    written = draw(tmp_path, [adapter("适配器")], [[1.0]])
    assert [path.name for path in written] == ["norms.png", "spectrum.png", "values-适配器.png"]
    assert "fonts-noto-cjk" in capsys.readouterr().err
    assert (tmp_path / "norms.txt").read_text(encoding="utf-8") == "[1] 适配器\n"


def test_adapters_of_one_name_have_pictures_of_their_own(tmp_path: Path) -> None:
    """The name looks like a formula, too."""
    written = draw(tmp_path, [adapter("$x_{$"), adapter("$x_{$")], [[1.0, 0.5], [0.5, 1.0]])
    names = ["norms", "spectrum", "values-$x_{$-1", "values-$x_{$-2", "cosine"]
    assert written == [tmp_path / f"{name}.png" for name in names]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_the_path_of_plots_is_checked_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "notes").touch()
    for name in ("x.jpg", "new.PNG", "notes"):
        with raises(RequestError, "--plot", name):
            check_folder(tmp_path / name)
    check_folder(tmp_path / "v1.2")
