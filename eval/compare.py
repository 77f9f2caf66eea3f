"""python -m eval.compare results/a [results/b …] --out DIR

Judge scored runs on the same rows: accuracies with intervals, every model against the base (exact
McNemar, Holm), what these rows could have shown, and a verdict. Writes table.json, table.md and
accuracy.png; needs no model and no torch.
"""

from collections.abc import Sequence
from pathlib import Path

import click

from core.errors import CLI, RequestError, run
from core.files import versions, write_json, write_text
from eval.measure.comparison import Comparison, Run, compare
from eval.output.runs import check_same_rows, find_runs, read_run
from eval.output.tables import LEFT_OUT, markdown, to_json

BASE = "base"


@click.command(context_settings=CLI)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder for tables and plots.")
def cli(results: tuple[Path, ...], out: Path) -> None:
    """Compare the models under RESULTS… (OUT, OUT/<model> or OUT/<model>/<set>) on the same rows.

    The base is the model of that name, else the first one given.
    """
    runs, warnings = read(results)
    for dataset in dict.fromkeys(one.dataset for one in runs):
        warnings += check_same_rows([one for one in runs if one.dataset == dataset])
    base = BASE if any(one.model == BASE for one in runs) else runs[0].model
    comparison = compare(runs, base)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    write(comparison, runs, warnings, out)
    click.echo(markdown(comparison), nl=False)
    click.echo(f"\n{out}: table.json, table.md, accuracy.png", err=True)


def read(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Return the runs under the folders and warnings about unfinished ones; each run counts once."""
    places: dict[Path, None] = {}
    warnings = []
    for folder in folders:
        whole, unfinished = find_runs(folder)
        if not whole:
            raise RequestError(f"{folder}: no results.json here or two levels below; score something first")
        places |= dict.fromkeys(place.resolve() for place in whole)
        warnings += [f"{place}: left out, unfinished; go on with --resume" for place in unfinished]
    return [read_run(place) for place in places], warnings


def write(comparison: Comparison, runs: Sequence[Run], warnings: Sequence[str], out: Path) -> None:
    """Write accuracy.png, table.md and, last, table.json into `out`."""
    from eval.output.plots import accuracy_plot

    accuracy_plot(comparison, out / "accuracy.png")
    write_text(out / "table.md", markdown(comparison))
    about = {
        "left_out": LEFT_OUT,
        "warnings": list(warnings),
        "runs": [one.source for one in runs],
        "versions": versions("numpy", "matplotlib"),
    }
    write_json(out / "table.json", to_json(comparison) | about)


if __name__ == "__main__":
    run(cli)
