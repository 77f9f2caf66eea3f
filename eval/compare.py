"""python -m eval.compare results/a [results/b …] --out DIR

Judge scored runs on the same rows: accuracies with intervals, every model against the base (exact
McNemar, Holm), what these rows could have shown, and a verdict. Needs no model and no torch.
docs/eval-compare.md explains the figures.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from core.errors import CLI, run
from core.files import write_json, write_text
from eval.measure.alignment import check_rows
from eval.measure.comparison import compare
from eval.measure.judgement import Comparison, Run
from eval.output.runs import parse_source, read_runs
from eval.output.tables import markdown, to_json

BASE = "base"


@click.command(context_settings=CLI)
@click.argument("results", nargs=-1, required=True, metavar="[NAME=]RESULTS…")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for tables and plots.")
def cli(results: tuple[str, ...], out: Path) -> None:
    """Compare models on the rows that all of them answered.

    RESULTS is a folder that eval.nli and the like wrote (OUT, OUT/MODEL or OUT/MODEL/SET), or another
    tool's log (lm-evaluation-harness's samples_*.jsonl; JSON Lines with id, gold, prediction).
    NAME is MODEL or MODEL/SET, for what is not named yet. The base is the model `base`, else the first.
    """
    runs, warnings = read_runs([parse_source(text) for text in results])
    for dataset in dict.fromkeys(one.dataset for one in runs):
        warnings += check_rows([one for one in runs if one.dataset == dataset])
    base = BASE if any(one.model == BASE for one in runs) else runs[0].model
    comparison = compare(runs, base)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    write(comparison, runs, warnings, out)


def write(comparison: Comparison, runs: Sequence[Run], warnings: Sequence[str], out: Path) -> None:
    """Write the plots, table.md and, last, table.json into `out`, and print the table."""
    from eval.output.plots import write_plots

    plots, typeface = write_plots(comparison, runs, out)
    text = markdown(comparison, typeface.numbered)
    write_text(out / "table.md", text)
    write_json(out / "table.json", to_json(comparison, runs, warnings, plots))
    click.echo(text, nl=False)
    click.echo(f"\n{out}: {', '.join([*plots, 'table.md', 'table.json'])}", err=True)


if __name__ == "__main__":
    run(cli)
