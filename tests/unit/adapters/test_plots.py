"""Pictures of adapters: what stands on them, in which colour, and whether it is within the picture."""

from adapters.plots import _cosine


def test_cosines_are_readable_on_dark_cells_and_the_colour_bar_is_whole() -> None:
    figure = _cosine(["a", "a long name of an adapter"], [[1.0, -0.1], [-0.1, None]])
    figure.draw_without_rendering()
    heat, bar = figure.axes
    told = [(text.get_text(), text.get_color()) for text in heat.texts]
    assert told == [("1.00", "white"), ("-0.10", "black"), ("-0.10", "black"), ("–", "black")]
    edge = bar.get_tightbbox()
    assert (
        edge is not None and edge.x1 <= figure.bbox.width and edge.y0 >= 0 and edge.y1 <= figure.bbox.height
    )
    assert heat.get_window_extent().width > 80  # pixels: the long name leaves room for the cells
