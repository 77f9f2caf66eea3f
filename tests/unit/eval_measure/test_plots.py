"""Plots: the pixels are looked at by people; what is tested is the text on them and the typeface."""

from pathlib import Path

import pytest
from matplotlib import font_manager

from eval.measure.comparison import Run, compare
from eval.output import drawing
from eval.output.drawing import CJK, choose_typeface, page
from eval.output.plots import _by_kind, _commonest, _finding, _kinds_finding, write_plots
from tests.unit.eval_measure.test_comparison import flags, make


def test_plain_labels_need_one_font() -> None:
    typeface = choose_typeface(["base", "rte–50 %"])
    assert (typeface.families, typeface.numbered) == (("DejaVu Sans",), {})


def test_without_a_cjk_font_labels_are_numbered_and_no_box_is_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(drawing, "CJK", ())
    typeface = choose_typeface(["base", "网络", "网络故障", "网络"])
    assert typeface.numbered == {"网络": "#1", "网络故障": "#2"}
    assert typeface.show("网络故障 beats base, 网络") == "#2 beats base, #1"
    with page(tmp_path / "x.png", "网络故障", 4, 3, typeface) as axes:
        axes.set_xlabel(typeface.show("网络"))
    assert (tmp_path / "x.png").stat().st_size > 1000
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_an_installed_cjk_font_is_used(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    if not {font.name for font in font_manager.fontManager.ttflist} & set(CJK):
        pytest.skip("no CJK font is installed")
    typeface = choose_typeface(["网络"])
    assert typeface.numbered == {} and len(typeface.families) == 2
    with page(tmp_path / "x.png", "网络", 4, 3, typeface):
        pass
    assert not [w for w in recwarn if "Glyph" in str(w.message)]


def test_the_title_says_the_finding() -> None:
    old, new = flags(40, 5, 30, 25)
    found = compare([make("base", old), make("a", new)], "base")
    assert _finding(found, found.sets[0]) == "a beats base by 25.0 points on s (p < 0.001)"
    both = compare([make("base", old), make("a", new), make("base", old, "t"), make("a", new, "t")], "base")
    assert (
        both.mean
        and _finding(both, both.mean) == "a beats base by 25.0 points on average over 2 sets (p < 0.001)"
    )
    none = compare([make("base", old), make("a", old)], "base")
    assert _finding(none, none.sets[0]) == "No model is shown to be better than base (s)"


def typed(model: str, right: list[bool], kinds: list[str]) -> Run:
    plain = make(model, right)
    return Run(
        model,
        "s",
        "",
        plain.rows,
        plain.gold,
        plain.predicted,
        right,
        None,
        {"subtype": kinds, "type": kinds},
    )


def test_kinds_are_counted_and_the_rare_ones_taken_together() -> None:
    kinds = ["a"] * 5 + ["b"] * 3 + [f"rare {n:02}" for n in range(30)]
    names = _commonest(kinds)
    assert names[:2] == ["a", "b"] and names[-1] == "others" and len(names) == 25
    shares = _by_kind(typed("m", [True] * 4 + [False] * 34, kinds), "subtype", names)
    assert shares["a"] == (4, 5) and shares["b"] == (0, 3) and shares["others"] == (0, 8)
    assert sum(n for _, n in shares.values()) == 38


def test_the_title_by_kind_counts_kinds() -> None:
    shares = {"base": {"a": (1, 5), "b": (3, 3), "c": (1, 1)}, "m": {"a": (4, 5), "b": (2, 3), "c": (1, 1)}}
    assert _kinds_finding(shares, "type", "base") == "m is ahead of base in 1 of 3 types, behind in 1"


@pytest.mark.parametrize("sets", [["s"], ["s", "t"]])
def test_which_plots_are_written(tmp_path: Path, sets: list[str]) -> None:
    kinds = ["x", "y"] * 10
    runs = [
        Run(model, name, "", run.rows, run.gold, run.predicted, run.correct, None, {"type": kinds})
        for name in sets
        for model, run in [("base", make("base", [False] * 20)), ("a", make("a", [True] * 20))]
    ]
    written, _ = write_plots(compare(runs, "base"), runs, tmp_path)
    assert sorted(written) == sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png"))
    folder = "" if len(sets) == 1 else "s/"
    assert (
        f"{folder}type_accuracy_comparison.png" in written
        and f"{folder}overall_accuracy_comparison.png" in written
    )
    assert not any("model_comparison" in name for name in written)  # there is no subtype
