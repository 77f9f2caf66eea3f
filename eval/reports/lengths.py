"""How long texts are, in tokens: for each kind of text the share of rows that are at most so long."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from core.typeface import choose_typeface
from eval.metrics.reading import percentiles
from eval.reports.drawing import COLOURS, FAINT, plot

PLOT = "lengths.png"
LINES = ("solid", "dashed", "dashdot", "dotted")  # distinct without colours too


def draw_lengths(lengths: Mapping[str, Sequence[int]], title: str, limit: int, path: Path) -> None:
    """Write a curve for each part, up to 100 % of its rows; `limit` is where training cuts an example."""
    typeface = choose_typeface([title])
    with plot(f"Lengths in tokens: {title}", (7.0, 4.2), path, typeface) as axes:
        for index, (name, values) in enumerate(lengths.items()):
            found = percentiles(values)
            told = f"{name}: median {found['p50']:,}, 95 % up to {found['p95']:,}"
            axes.ecdf(values, label=told, color=COLOURS[index + 1], linestyle=LINES[index], linewidth=1.8)
        axes.axvline(limit, color="black", linewidth=0.8, label=f"cut at {limit:,}")
        axes.set_xscale("symlog", base=2, linthresh=1)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set(
            xlabel="tokens", ylabel="share of rows at most this long, %", xlim=(-0.1, None), ylim=(0, 1.02)
        )
        axes.set_yticks([0, 0.25, 0.5, 0.75, 0.95, 1], ["0", "25", "50", "75", "95", "100"], fontsize=8)
        axes.grid(color=FAINT, linewidth=0.8)
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False, ncols=2, fontsize=8)
