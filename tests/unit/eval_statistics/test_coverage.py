"""The designs in which intervals once failed hold the truth: some of `tools.bench.coverage`, fewer pages."""

import numpy as np
import pytest

from testing.interval_designs import ALL_PAGES, Page, designs, line

FORMERLY = (
    "accuracy | 5 clusters, ICC 0.3",
    "macro-F1 | 3 labels, 60 : 30 : 10, n = 50",
    "macro-F1 | 3 labels, nearly all correct, 5 clusters",
    "metric | lognormal σ = 1, n = 100",
)


@pytest.mark.parametrize("name", FORMERLY)
def test_an_interval_that_once_failed_holds_the_truth(name: str) -> None:
    generator = np.random.default_rng(1)
    draw = designs()[name]
    pages = [draw(generator) for _ in range(200)]
    assert not any(page.contradicts for page in pages)
    for kind in ("figure", "difference"):
        assert np.mean([getattr(page, kind) for page in pages]) >= 0.92


@pytest.mark.parametrize(
    ("pages", "coverage", "narrow"), [(20, 0.9, False), (20, 0.5, True), (ALL_PAGES, 0.9, True)]
)
def test_few_pages_call_no_design_too_narrow_by_chance(pages: int, coverage: float, narrow: bool) -> None:
    held = iter([True] * round(pages * coverage) + [False] * pages)

    def draw(_: np.random.Generator) -> Page:
        holds = next(held)
        return Page(figure=holds, difference=holds, warned=False, contradicts=False)

    cells, is_narrow = line(draw, pages, seed=0)
    assert is_narrow is narrow and cells.endswith("TOO NARROW") is narrow


def test_every_design_can_be_drawn() -> None:
    for name, draw in designs().items():
        assert not draw(np.random.default_rng(0)).contradicts, name
