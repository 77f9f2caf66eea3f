"""tuneyard eval ab --model models/demo-base --adapter rte --data prompts.txt --out results/ab
tuneyard eval ab tally results/ab/sheet.csv

Base against tuned: all models answer the same prompts. Raters mark the answers in a sheet without the models'
names, and `tally` computes which model won. docs/eval-ab.md describes sheet and figures.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tuneyard.core.cli.main import LazyGroup, cli_command, next_step, same_options
from tuneyard.core.cli.run import run_command
from tuneyard.core.documents import json_lines
from tuneyard.core.errors import RequestError
from tuneyard.core.files import atomic, require, write_json, write_text
from tuneyard.core.language.message import _, counted, joined
from tuneyard.core.language.messages import say
from tuneyard.core.records.prediction_record import Prediction
from tuneyard.core.records.rating_record import AnswerKey, RatingKey
from tuneyard.eval.ab.sheet import (
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
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.figures.answers import cut_thought
from tuneyard.eval.models.batch_plan import Fields
from tuneyard.eval.runs.results import PREDICTIONS, Results, check_files
from tuneyard.eval.scoring.command import Declared, scoring_command
from tuneyard.eval.scoring.evaluation import (
    NO_TEXT,
    Evaluation,
    Job,
    NextStep,
    answer_without,
)
from tuneyard.eval.scoring.options import PATH, number, sampling_options
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.statistics.rates import group_of, is_answered

if TYPE_CHECKING:
    from tuneyard.eval.scoring.candidates import Opened

SEED = 42  # of the order in the sheet
SHEET, KEY, ANSWERS = "sheet.csv", "key.json", "answers.md"


class AskByDefault(LazyGroup):
    """A group whose first command needs no name, so that its options can follow the group's name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Insert `ask` before arguments that begin with one of its options."""
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = ["ask", *args]
        return super().parse_args(ctx, args)


@click.group(cls=AskByDefault)
def cli() -> None:
    """Let people judge the answers of a base model and adapters without the models' names."""


@scoring_command(
    "ab",
    "tuneyard eval ab --model models/demo-base --adapter demo-rte --dataset demo_rte_eval "
    "--limit 2 --max-new-tokens 4 --out build/ab",
    "tuneyard eval ab --model models/demo-base --adapter demo-rte --data "
    "eval/suites/toolkit-questions.jsonl --limit 2 --max-new-tokens 4 --out build/asked",
    options=[
        *sampling_options,
        number(
            "--seed",
            type=click.IntRange(0),
            help="Seed of the answers' order in the sheet, and of sampled answers.  [42]",
        ),
    ],
    without=("--rescore", "--repeat", "--seed"),
    longest=512,
)
def ask(request: ScoringRequest, datasets: Sequence[EvalDataset]) -> Declared:
    """Answer every prompt with every model and write the sheet. This is the default command.

    Prompts need no reference answers: --data also takes a .txt file with one prompt a line.
    """
    from tuneyard.eval.scoring.candidates import open_adapters

    if request.force:
        check_unrated(request.out / SHEET)
    _unused, models = open_adapters(request)  # before the base is loaded
    if len(models) < 2:
        (only,) = models
        raise RequestError(
            _("only {models} is prompted: name another model with --adapter NAME[=DIR]", models=only)
        )
    order = SEED if request.seed is None else request.seed
    return Ab(request, order, [dataset.name for dataset in datasets]), datasets


cli.add_command(ask, "ask")
cli.examples = ask.examples


@cli_command(
    "tally",
    "tuneyard eval ab tally build/ab/anna.csv",
    "tuneyard eval ab tally build/ab/anna.csv build/ab/ben.csv --out build/tally",
)
@click.argument("sheets", nargs=-1, required=True, type=PATH, metavar="SHEET…")
@click.option("--key", type=PATH, help="[key.json next to the first sheet]")
@click.option("--out", type=PATH, help="Folder for tally.md and tally.json.")
def tally(sheets: tuple[Path, ...], key: Path | None, out: Path | None) -> None:
    """Read filled sheets, one of each rater, and report which model won, by criterion and overall."""
    if out:
        check_files(out, ("tally.json", "tally.md"), "verdicts")
    files = [sheet / SHEET if sheet.is_dir() else sheet for sheet in sheets]
    filled = dict.fromkeys(require(file, _("sheet")) for file in files)
    stems = Counter(sheet.stem for sheet in filled)
    key_path = key or next(iter(filled)).with_name(KEY)
    if not key_path.is_file():
        raise RequestError(
            _("{path}: no key; name the one that `tuneyard eval ab` wrote: --key PATH", path=key_path)
        )
    answer_key = read_key(key_path)
    ratings = []
    for sheet in filled:  # a rater is named by the path if two sheets have the same name
        rater = sheet.stem if stems[sheet.stem] == 1 else str(sheet)
        ratings += read_sheet(sheet, answer_key, rater)
    results = tally_json(ratings, answer_key.models, answer_key.clusters)
    text = tally_table(results)
    click.echo(text, nl=False)
    if out:
        write_json(out / "tally.json", results)
        write_text(out / "tally.md", text)
        next_step(out / "tally.md")
    else:
        folder = sheets[0].parent / "tally"
        words = ["tuneyard", "eval", "ab", "tally", *sheets, *same_options("--key"), "--out", folder]
        next_step(None, words)


cli.add_command(tally)


@dataclass(frozen=True, slots=True)
class Ab(Evaluation):
    """Answering prompts: nothing is judged here, the answers of all models go into a sheet."""

    request: ScoringRequest
    seed: int
    sets: Sequence[str]
    if_too_long = _("left out of the sheet")
    for_people = (SHEET, KEY, ANSWERS)

    def check_models(self, opened: "Opened") -> None:
        """Check that the key in OUT is of the same sheet."""
        check_unrated(self.request.out / SHEET)
        models = [candidate.name for candidate in opened.candidates]
        if not self.request.force:
            check_key(self.request.out / KEY, self._key(models, {}))

    def _key(self, models: Sequence[str], answers: dict[str, AnswerKey]) -> RatingKey:
        return {
            "format": 2,
            "seed": self.seed,
            "models": list(models),
            "datasets": list(self.sets),
            "answers": answers,
        }

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """The prompt, the expected answer ("" if the data has none), and the model's answer."""
        turns = job.rows[row].messages
        prompt = turns[0]["content"]
        if len(turns) > 1:
            prompt = "\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
        return {
            "instruction": prompt,
            "expected_output": job.rows[row].answer,
            "model_output": "",
            "row": row,
            **answer_without(fields, ()),
        }

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:  # noqa: ARG002
        """Count the answers and the empty ones."""
        return {
            "mode": "generate",
            "n": len(predictions),
            "empty": sum(not cut_thought(line["model_output"]) for line in predictions),
        }

    def warnings(self, results: Results) -> list[str]:
        """Also warn if all answers are empty."""
        warnings = Evaluation.warnings(self, results)
        if results["empty"] == results["n"]:
            warnings.append(NO_TEXT)
        return warnings

    def line(self, results: Results) -> str:
        """The number of answers."""
        return _("n {n}  empty {empty}", n=results["n"], empty=results["empty"])

    def finish(self, out: Path, models: Sequence[str], sets: Sequence[str]) -> None:
        """Write the sheet for the raters, its key, and the answers side by side."""
        prompts: list[Answered] = []
        for name in sets:
            prompts += _answers(out, models, name)
        sheet, answers = make_sheet(prompts, self.seed)
        write_text(out / ANSWERS, side_by_side(prompts))
        write_json(out / KEY, self._key(models, answers))
        with atomic(out / SHEET) as file:
            file.write(sheet)
        counts = [
            counted(len(prompts), "prompt", "prompts"),
            counted(len(answers), "answer", "answers"),
        ]
        lines = [
            "",
            joined(counts),
            _("{path}: for the raters, marks from 1 to 5", path=out / SHEET),
            _("{path}: the model of each answer", path=out / KEY),
            _("{path}: the answers side by side, with the models' names", path=out / ANSWERS),
        ]
        say(joined(lines, "\n"))

    def next_step(
        self,
        out: Path,
        models: Sequence[str],  # noqa: ARG002
        sets: Sequence[str],  # noqa: ARG002
    ) -> NextStep:
        """Rate the sheet, then tally it."""
        return out / SHEET, ["tuneyard", "eval", "ab", "tally", str(out / SHEET)]


def _answers(out: Path, models: Sequence[str], name: str) -> list[Answered]:
    """Prompts of a dataset with all answers. A prompt that a model has no answer to is left out."""
    logs = [[line for _unused, line in json_lines(out / model / name / PREDICTIONS)] for model in models]
    answered = []
    for lines in zip(*logs, strict=True):
        if not all(map(is_answered, lines)):
            continue
        answers = {}
        for model, line in zip(models, lines, strict=True):
            answers[model] = cut_thought(str(line["model_output"]))
        first = lines[0]
        cluster = group_of(first)
        if cluster is not None:
            cluster = f"{name}/{cluster}"
        answered.append(Answered(str(first["instruction"]), str(first["expected_output"]), answers, cluster))
    return answered


if __name__ == "__main__":
    run_command(cli)
