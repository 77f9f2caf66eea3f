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


@pytest.mark.parametrize("content", [None, b"", b"mine"])
@pytest.mark.parametrize("ending", ["png", "svg", "pdf", "jpg"])
def test_a_plot_or_file_of_somebody_else_is_not_replaced(
    ending: str, content: bytes | None, tmp_path: Path
) -> None:
    """A .jpg has no mark of ours, so an existing one is somebody's."""
    path = tmp_path / f"plot.{ending}"
    if content is None:
        figure(1).savefig(path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with raises(RequestError, path.name):
        save(figure(2), path)
    assert path.read_bytes() == before
