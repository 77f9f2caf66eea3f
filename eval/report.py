"""python -m eval.report results/a [results/b …] --out FILE.html

Put what eval.compare finds, and the errors to look through, into one HTML file that needs no network
and no other file. Needs no model and no torch. docs/eval-report.md describes the page.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuneyard.core.cli import cli_command, command_line
from tuneyard.core.errors import run
from tuneyard.core.files import write_text
from tuneyard.core.language import lang_option, tr

if TYPE_CHECKING:
    from tuneyard.core.number_format import Table
    from tuneyard.eval.judge.compared import ComparedRuns

MOST_ERRORS = 2000


@cli_command(
    "report",
    "tuneyard eval report results/demo --out build/report.html",
    "tuneyard eval report results/demo/base results/demo/rte=1,mnli=0 --out build/two.html",
)
@click.argument("results", nargs=-1, required=True, metavar="[NAME=]RESULTS…")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The page.")
@click.option("--errors", type=click.IntRange(0), default=MOST_ERRORS, show_default=True, metavar="N",
              help="The most examples to look through; of more, N are taken, evenly spread.")  # fmt: skip
@lang_option
def cli(results: tuple[str, ...], out: Path, errors: int) -> None:
    """Write a page with the verdict, tables, plots, incorrect examples and provenance of scored runs.

    RESULTS are named as for eval.compare: folders that eval.nli and the like wrote, or other tools' logs.
    """
    from tuneyard.eval.judge.compared import compare_in_stated_metrics, compare_results
    from tuneyard.eval.show.html import argument, check_page

    check_page(out)
    title = tr("Report on {names}", names=", ".join(map(argument, results)))
    compared = compare_results(results)
    compared = replace(compared, other_metrics=compare_in_stated_metrics(results, compared))
    write(render(compared, title, errors), out)


def write(text: str, out: Path) -> None:
    """Write a page, and say how large it is."""
    write_text(out, text)
    click.echo(f"{out}  {len(text.encode()) / 1e6:.1f} MB")


def render(
    compared: "ComparedRuns",
    title: str,
    most: int = MOST_ERRORS,
    module: str = "eval.report",
    tables: "Mapping[str, Table] | None" = None,
) -> str:
    """Return the page with at most `most` errors, made by the command line of `module`. `tables` by caption
    come before the plots, by default those of the questions."""
    from tuneyard.eval.show.html import page
    from tuneyard.eval.show.incorrect import collect_incorrect
    from tuneyard.eval.show.plots import write_plots
    from tuneyard.eval.show.tables import question_tables

    with tempfile.TemporaryDirectory() as folder:
        names, typeface = write_plots(compared.comparison, compared.runs, Path(folder), "svg")
        plots = {name: (Path(folder) / name).read_text(encoding="utf-8") for name in names}
    errors = collect_incorrect(compared.runs, compared.comparison.models, most)
    if tables is None:
        tables = question_tables(compared)
    return page(title, compared, tables, plots, typeface.numbered, errors, command_line(module))


if __name__ == "__main__":
    run(cli)
