"""A plot replaces plots alone, never a file that somebody else made."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from tests.messages import raises
from tuneyard.core.drawing.plots import save
from tuneyard.core.errors import RequestError


def figure(height: float) -> Figure:
    drawn = Figure(figsize=(2, 2))
    drawn.add_subplot().bar(["a"], [height])
    return drawn


@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "PNG"])
def test_a_plot_replaces_the_plot_before(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"plot.{ending}"
    save(figure(1), path)
    before = path.read_bytes()
    save(figure(2), path)
    assert path.read_bytes() != before


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_a_plot_of_somebody_else_is_not_replaced(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"plot.{ending}"
    figure(1).savefig(path)
    before = path.read_bytes()
    with raises(RequestError, f"plot.{ending}"):
        save(figure(2), path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"mine"])
def test_any_other_file_is_not_replaced(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "plot.jpg"  # has no mark of ours, so an existing one is somebody's
    path.write_bytes(content)
    with raises(RequestError, "plot.jpg"):
        save(figure(2), path)
    assert path.read_bytes() == content
