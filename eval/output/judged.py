"""From what was named on a command line to a judgement: what compare and report have in common."""

from collections.abc import Sequence
from dataclasses import dataclass

import click

from eval.measure.alignment import check_rows
from eval.measure.comparison import compare
from eval.measure.judgement import Comparison, Run
from eval.output.runs import parse_source, read_runs

BASE = "base"


@dataclass(frozen=True, slots=True)
class Judged:
    """Runs, what follows from them, and what to bear in mind."""

    comparison: Comparison
    runs: Sequence[Run]
    warnings: Sequence[str]


def judge(results: Sequence[str]) -> Judged:
    """Read and compare the runs named by `[NAME=]RESULTS`; the base is the model `base`, else the first.

    Warnings go to stderr too. Errors are those of `read_runs` and `check_rows`.
    """
    runs, warnings = read_runs([parse_source(text) for text in results])
    for dataset in dict.fromkeys(one.dataset for one in runs):
        warnings += check_rows([one for one in runs if one.dataset == dataset])
    base = BASE if any(one.model == BASE for one in runs) else runs[0].model
    comparison = compare(runs, base)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    return Judged(comparison, runs, warnings)
