"""tuneyard eval cmmlu --model Qwen/Qwen2.5-0.5B --adapter qa --shots 5 --out results/cmmlu

CMMLU: 67 Chinese school and professional subjects in 5 groups, four options a question, scored by the
probabilities of A, B, C and D after the benchmark's own prompt. docs/eval-cmmlu.md explains the table.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, cast

import click

from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import RequestError
from tuneyard.core.files import read_object, write_json, write_text
from tuneyard.core.language.message import _, joined, marked, tr
from tuneyard.core.language.messages import say
from tuneyard.core.language.number_format import percent
from tuneyard.core.records.record import read_record
from tuneyard.core.records.results_record import ResultsRecord
from tuneyard.core.text.markdown import markdown_table
from tuneyard.core.training.metrics import ACCURACY
from tuneyard.eval.cmmlu.subjects import HUB_ID, LETTERS, choose_subjects, fetch, in_groups, read_exam
from tuneyard.eval.figures.labels import LabelSet
from tuneyard.eval.nli import Nli
from tuneyard.eval.runs.results import RESULTS, Results
from tuneyard.eval.scoring.command import Declared, scoring_command
from tuneyard.eval.scoring.options import dataset_dir
from tuneyard.eval.scoring.request import ScoringRequest
from tuneyard.eval.statistics.rates import Mean, average

AVERAGE = marked("average over subjects")
QUESTIONS = _("all questions as one")
TABLE, SCORES = "cmmlu.md", "cmmlu.json"


class GroupScore(TypedDict):
    """The mean accuracy of a group of subjects, in scores.json."""

    datasets: int
    n: int
    accuracy: float
    ci95: Sequence[float]
    majority: float
    over_questions: float


Scores = dict[str, dict[str, GroupScore]]  # by model, then by group, the average last
PLAIN = "the benchmark's text (no chat template)"


@scoring_command(
    "cmmlu",
    "tuneyard eval cmmlu --model Qwen/Qwen2.5-0.5B --out results/cmmlu",
    "tuneyard eval cmmlu --model Qwen/Qwen2.5-0.5B --adapter qa --shots 5 --out results/shots",
    options=[
        click.option(
            "--data",
            "source",
            default=HUB_ID,
            metavar="DIR|ID",
            show_default=True,
            help="Folder with dev/ and test/ of the benchmark, or its id on the hub.",
        ),
        dataset_dir,
        click.option("--subjects", metavar="A,B,…", help="Only these subjects.  [all that are there]"),
        click.option(
            "--shots",
            type=click.IntRange(0, 5),
            default=5,
            show_default=True,
            metavar="N",
            help="Questions with answers before each question.",
        ),
        click.option("--chat", is_flag=True, help="Prompt in the chat template, not as plain text."),
    ],
    without=("--dataset", "--dataset-dir", "--data", "--cluster", "--rescore"),
)
def cli(request: ScoringRequest, source: str, subjects: str | None, shots: int, chat: bool) -> Declared:
    """Score a base model and adapters on CMMLU, by subject, group and on average.

    Averages are over subjects, as in the benchmark, each with its n, 95 % interval and majority baseline.
    """
    if request.template and not chat:
        raise RequestError(_("--template needs --chat: without it no template is used"))
    if request.bos and not chat:
        raise RequestError(
            _("--bos needs --chat: the benchmark's text begins with the tokenizer's BOS already")
        )
    folder = Path(source) if Path(source).is_dir() else None
    chosen = choose_subjects(subjects, folder)
    if folder is None:
        folder = fetch(source, chosen)
    evaluation = Cmmlu(
        label_sets=dict.fromkeys(chosen, LabelSet(list(LETTERS), {})),
        mode="choice",
        variants="none",
        summaries=(TABLE, SCORES),
        further_settings={"shots": shots, "chat": chat},
        plain_prompts="" if chat else PLAIN,
    )
    return evaluation, [read_exam(folder, name, chinese, shots) for name, chinese in chosen.items()]


@dataclass(frozen=True, slots=True)
class Cmmlu(Nli):
    """Choosing between four letters, with the benchmark's plain prompts and its table of groups."""

    tests = _("multiple choice in Chinese")
    plain_prompts: str = PLAIN

    def suite_figures(
        self,
        out: Path,
        model: str,
        results_by_dataset: Mapping[str, Results],  # noqa: ARG002  the average is over all subjects
    ) -> dict[str, Results]:
        """The average over subjects alone."""
        scores = cast(Scores, read_object(out / SCORES))
        average = scores[model][AVERAGE]
        return {f"accuracy, {AVERAGE}": {**average, "value": average["accuracy"]}}

    def finish(self, out: Path, models: Sequence[str], sets: Sequence[str]) -> None:  # noqa: ARG002
        """Print and write the table of groups."""
        scores = read_groups(out, models, in_groups(self.label_sets))
        table = group_table(scores)
        write_text(out / TABLE, f"{table}\n")
        write_json(out / SCORES, scores)
        say(joined(["", table], "\n"))


def read_groups(out: Path, models: Sequence[str], groups: Mapping[str, Sequence[str]]) -> Scores:
    """Each model's score in every group and over all subjects, from results in OUT/MODEL/SUBJECT."""
    subjects = list(dict.fromkeys(itertools.chain.from_iterable(groups.values())))  # some are in two
    scores: Scores = {}
    for model in models:
        results = {name: read_record(out / model / name / RESULTS, ResultsRecord) for name in subjects}
        scores[model] = {}
        for group, names in {**groups, AVERAGE: subjects}.items():
            scores[model][group] = group_score([results[name] for name in names])
    return scores


def group_score(results: Sequence[Results]) -> GroupScore:
    """Mean accuracy of subjects by their results.json, with its 95 % limits. Every subject counts alike.

    `over_questions` is the share of correct answers to all questions taken as one subject.
    """
    measured = []
    for each in results:
        low, high = each["ci95"]
        measured.append(Mean(each["accuracy"], low, high, each["n"], each["stderr"]))
    mean = average(measured)
    majority = sum(each["majority"] for each in results) / len(results)
    correct = sum(round(each["accuracy"] * each["n"]) for each in results)
    return {
        "datasets": len(results),
        "n": mean.n,
        "accuracy": mean.value,
        "ci95": mean.ci95,
        "majority": majority,
        "over_questions": correct / mean.n,
    }


def group_table(scores: Scores) -> str:
    """Table with groups as rows and models as columns, the two averages last."""
    first = next(iter(scores.values()))
    rows = []
    for group, score in first.items():
        shares = []
        for groups_of_model in scores.values():
            accuracy = groups_of_model[group]
            shares.append(ACCURACY.interval_text((accuracy["accuracy"], *accuracy["ci95"])))
        name = tr(AVERAGE) if group == AVERAGE else group
        rows.append([name, str(score["datasets"]), f"{score['n']:,}", percent(score["majority"]), *shares])
    last = first[AVERAGE]
    overall = [percent(groups_of_model[AVERAGE]["over_questions"]) for groups_of_model in scores.values()]
    rows.append([tr(QUESTIONS), str(last["datasets"]), f"{last['n']:,}", "", *overall])
    header = [tr("accuracy (95 % interval)"), tr("subjects"), "n", tr("majority"), *scores]
    return markdown_table(header, rows)


if __name__ == "__main__":
    run_command(cli)
