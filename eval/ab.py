"""python -m eval.ab --model models/demo-base --adapter rte --data prompts.txt --out results/ab
python -m eval.ab tally results/ab/sheet.csv

Base against tuned: all models answer the same prompts, raters mark the answers in a sheet that does not
tell whose they are, and `tally` says who won. docs/eval-ab.md describes sheet and figures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tuneyard.core.cli import cli_command
from tuneyard.core.documents import json_lines
from tuneyard.core.errors import CLI, RequestError, counted, run
from tuneyard.core.files import atomic, require, write_json, write_text
from tuneyard.eval.backends.scorers import Fields
from tuneyard.eval.datasets.dataset import read_datasets
from tuneyard.eval.metrics.answers import cut_thought
from tuneyard.eval.read.results import PREDICTIONS, Prediction
from tuneyard.eval.scoring.candidates import Opened
from tuneyard.eval.scoring.command import Asked, scoring_command
from tuneyard.eval.scoring.options import ScoringRequest
from tuneyard.eval.scoring.task import Job, Task
from tuneyard.eval.show.sheet import (
    Answered,
    check_key,
    check_unrated,
    make_sheet,
    read_key,
    read_sheet,
    side_by_side,
    tally_json,
    tally_table,
)
from tuneyard.eval.statistics.rates import group_of

SHEET, KEY, ANSWERS = "sheet.csv", "key.json", "answers.md"


class AskByDefault(click.Group):
    """A group whose first command needs not be named, so that its options stand as in other commands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `ask` before arguments that begin with an option of its own."""
        own = args and args[0].startswith("-") and args[0] not in ctx.help_option_names
        return super().parse_args(ctx, ["ask", *args] if own else args)


@click.group(cls=AskByDefault, context_settings=CLI)
def cli() -> None:
    """Have people judge the answers of a base model and adapters without knowing whose they are."""


@scoring_command(
    "tuneyard eval ab --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
    "--limit 2 --max-new-tokens 4 --out build/ab",
    "tuneyard eval ab --model models/demo-base --adapter demo-rte --data "
    "eval/suites/toolkit-questions.jsonl --limit 2 --max-new-tokens 4 --out build/asked",
    own=[
        click.option(
            "--seed", default=42, show_default=True, metavar="N", help="Of the answers' order in the sheet."
        )
    ],
    rescored=False,
    repeated=False,
    longest=512,
)
def ask(request: ScoringRequest, seed: int) -> Asked:
    """Answer every prompt with every model and write the sheet (needs not be named: the default).

    Prompts need no reference answers: --data also takes a .txt file with one prompt a line.
    """
    check_unrated(request.out / SHEET)
    sets = read_datasets(request.datasets, request.data, request.cluster)
    return Ab(request, seed, [dataset.name for dataset in sets]), sets


cli.add_command(ask)
cli.epilog = ask.epilog


@cli_command(
    "tally",
    "tuneyard eval ab tally build/ab/anna.csv",
    "tuneyard eval ab tally build/ab/anna.csv build/ab/ben.csv --out build/tally",
)
@click.argument("sheets", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="SHEET…")
@click.option("--key", type=click.Path(path_type=Path), help="[key.json beside the first sheet]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for tally.md and tally.json.")
def tally(sheets: tuple[Path, ...], key: Path | None, out: Path | None) -> None:
    """Read filled sheets back, one of each rater, and say who won, by criterion and overall."""
    stems = Counter(sheet.stem for sheet in sheets)  # a rater's name, or the path where two sheets have one
    named = {
        sheet.stem if stems[sheet.stem] == 1 else str(sheet): require(sheet, "sheet") for sheet in sheets
    }
    if len(named) < len(sheets):
        raise RequestError("a sheet is named twice: give each rater's sheet once")
    known = read_key(require(key or sheets[0].with_name(KEY), "key"))
    ratings = [rating for rater, sheet in named.items() for rating in read_sheet(sheet, known, rater)]
    told = tally_json(ratings, known.models, known.clusters)
    text = tally_table(told)
    click.echo(text, nl=False)
    if out:
        write_text(out / "tally.md", text)
        write_json(out / "tally.json", told)


cli.add_command(tally)


@dataclass(frozen=True, slots=True)
class Ab(Task):
    """Answering prompts: nothing is judged here, the answers of all models go into a sheet."""

    request: ScoringRequest
    seed: int
    sets: Sequence[str]
    command = "eval.ab"
    refused = "left out of the sheet"

    def prompted(self, opened: Opened) -> Opened:
        """Return the models; `RequestError` for a single one, or where the key in OUT is of another sheet."""
        models = [candidate.name for candidate in opened.candidates]
        if len(models) < 2:
            raise RequestError(f"only {models[0]} is prompted: name another model with --adapter NAME[=DIR]")
        if not self.request.force:
            check_key(self.request.out / KEY, self._facts(models))
        return opened

    def _facts(self, models: Sequence[str]) -> dict[str, object]:
        return {"seed": self.seed, "models": list(models), "sets": list(self.sets)}

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return the prompt, the answer that the data expects ("" without one), and the model's."""
        asked, turns = job.rows[row], job.rows[row].messages
        said = [f"{turn['role']}: {turn['content']}" for turn in turns]
        shown = turns[0]["content"] if len(turns) == 1 else "\n".join(said)  # who said what, of several turns
        known = {"instruction": shown, "expected_output": asked.answer, "model_output": "", "row": row}
        return {**known, **fields}

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:  # noqa: ARG002
        """Return how many answers there are, and how many are none."""
        return {
            "mode": "generate",
            "n": len(predictions),
            "empty": sum(not cut_thought(str(p["model_output"])) for p in predictions),
        }

    def line(self, results: Mapping[str, Any]) -> str:
        """Return the number of answers."""
        return f"n {results['n']}  empty {results['empty']}"

    def finish(self, out: Path, models: Sequence[str]) -> None:
        """Write the sheet for the raters, its key, and the answers side by side."""
        asked = [one for name in self.sets for one in _answers(out, models, name)]
        sheet, answers = make_sheet(asked, self.seed)
        write_text(out / ANSWERS, side_by_side(asked))
        write_json(out / KEY, {**self._facts(models), "answers": answers})
        with atomic(out / SHEET) as file:
            file.write(sheet)
        click.echo(
            f"\n{counted(len(asked), 'prompt')}, {counted(len(answers), 'answer')}\n"
            f"{out / SHEET}: for the raters, marks from 1 to 5\n{out / KEY}: whose answers they are\n"
            f"{out / ANSWERS}: the answers side by side, named"
        )


def _answers(out: Path, models: Sequence[str], name: str) -> list[Answered]:
    """Return the prompts of a set that every model could be asked."""
    logs = [[line for _, line in json_lines(out / model / name / PREDICTIONS)] for model in models]
    return [
        Answered(
            str(lines[0]["instruction"]),
            str(lines[0]["expected_output"]),
            {
                model: cut_thought(str(line["model_output"]))
                for model, line in zip(models, lines, strict=True)
            },
            None if (cluster := group_of(lines[0])) is None else f"{name}/{cluster}",
        )
        for lines in zip(*logs, strict=True)
        if not any("refused" in line for line in lines)
    ]


if __name__ == "__main__":
    run(cli)
