"""The page of a comparison: one HTML file with the verdict, tables, plots and incorrect examples."""

from collections.abc import Mapping, Sequence

from tuneyard.core.cli.main import command_line
from tuneyard.core.language.number_format import Table
from tuneyard.eval.judge.ask import ComparedRuns
from tuneyard.eval.read.scored_run import models_of
from tuneyard.eval.show.html import page
from tuneyard.eval.show.incorrect import collect_incorrect
from tuneyard.eval.show.plots import DrawnPlot, draw_plots


def render(
    compared: ComparedRuns,
    title: str,
    most: int = 2000,
    module: str = "eval.compare",
    tables: Mapping[str, Table] | None = None,
    plots: Sequence[DrawnPlot] | None = None,
    note: str = "",
    next_command: str = "",
) -> str:
    """Render the page with at most `most` incorrect examples.

    `module` is the command that makes the page. `tables` by caption follow the deciding section, by
    default those of the questions. `plots` are drawn if they are not given. `note` is the user's.
    `next_command` carries the decision out.
    """
    if plots is None:
        plots = draw_plots(compared.comparison, compared.run_list)
    if tables is None:
        tables = compared.tables
    errors = collect_incorrect(compared.run_list, models_of(compared.runs), most)
    return page(title, compared, tables, plots, errors, (command_line(module), next_command), note)
