"""python -m eval.cmmlu --model Qwen/Qwen2.5-0.5B --adapter qa --shots 5 --out results/cmmlu

CMMLU: 67 Chinese school and professional subjects in 5 groups, four options a question, scored by the
probabilities of A, B, C and D after the benchmark's own prompt. docs/eval-cmmlu.md explains the table.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from tuneyard.core.errors import RequestError, counted, run
from tuneyard.core.files import read_object, write_json, write_text
from tuneyard.core.number_format import Table, grid, interval, percent
from tuneyard.eval.backends.scorers import Fields, Scorer, choosing
from tuneyard.eval.datasets.cmmlu import (
    HUB_ID,
    LETTERS,
    Exam,
    choose_subjects,
    fetch,
    in_groups,
    prompt,
    read_exam,
)
from tuneyard.eval.metrics.labels import accuracy_line, summary
from tuneyard.eval.nli import mass_warnings, mean_mass
from tuneyard.eval.read.results import RESULTS, Prediction
from tuneyard.eval.scoring.candidates import Opened
from tuneyard.eval.scoring.command import Asked, scoring_command
from tuneyard.eval.scoring.options import ScoringRequest
from tuneyard.eval.scoring.task import Figure, Job, Task, line_of
from tuneyard.eval.statistics.rates import Measured, average

AVERAGE = "average over subjects"
QUESTIONS = "all questions as one"
TABLE, SCORES = "cmmlu.md", "cmmlu.json"
Scores = dict[str, dict[str, dict[str, Any]]]  # by model, then by group, the average last
PLAIN = "the benchmark's text (no chat template)"


@scoring_command(
    "tuneyard eval cmmlu --model Qwen/Qwen2.5-0.5B --out results/cmmlu",
    "tuneyard eval cmmlu --model Qwen/Qwen2.5-0.5B --adapter qa --shots 5 --out results/shots",
    own=[
        click.option(
            "--data",
            "source",
            default=HUB_ID,
            metavar="DIR|ID",
            show_default=True,
            help="Folder with dev/ and test/ of the benchmark, or its id on the hub.",
        ),
        click.option(
            "--subjects", metavar="A,B,…", help="Only these subjects; by default all that are there."
        ),
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
    data=False,
    rescored=False,
)
def cli(request: ScoringRequest, source: str, subjects: str | None, shots: int, chat: bool) -> Asked:
    """Score a base model and adapters on CMMLU, by subject, group and on average.

    Averages are over subjects, as the benchmark's, each with its n, 95 % interval and majority baseline.
    """
    if request.backend != "hf":
        raise RequestError(
            f"--backend {request.backend}: CMMLU needs the probabilities of A to D, which hf gives"
        )
    if request.template and not chat:
        raise RequestError("--template needs --chat: without it no template is used")
    if request.bos and not chat:
        raise RequestError("--bos needs --chat: the benchmark's text begins with the tokenizer's BOS already")
    folder = Path(source) if Path(source).is_dir() else None
    chosen = choose_subjects(subjects, folder)
    folder = folder or fetch(source, [subject.name for subject in chosen])
    exams = {subject.name: read_exam(folder, subject, shots) for subject in chosen}
    return Cmmlu(shots, chat, exams), [exam.dataset for exam in exams.values()]


@dataclass(frozen=True, slots=True)
class Cmmlu(Task):
    """Asking for one of four letters: the command's own options, and what is asked by subject."""

    shots: int
    chat: bool
    exams: Mapping[str, Exam]
    command = "eval.cmmlu"
    kept = ("shots", "chat")
    summaries = (TABLE, SCORES)

    def prompted(self, opened: Opened) -> Opened:
        """Return the models asked in plain text, unless a chat is asked for."""
        return opened if self.chat else _plain(opened)

    def scorer(self, job: Job) -> Scorer:
        """Return one that compares the four letters' probabilities after each question's prompt."""
        return _few_shot(job, self.exams[job.dataset.name])

    def prediction(self, job: Job, row: int, fields: Fields) -> Prediction:
        """Return the question, the right letter and the likeliest, and the probabilities of all four."""
        return {**line_of(job, row, fields), **fields}

    def results(self, job: Job, predictions: list[Prediction]) -> dict[str, object]:
        """Return accuracy with its uncertainty and baseline, and what the context had no room for."""
        return {
            "mode": "choice",
            **summary(predictions, job.dataset.answers),
            "label_mass": mean_mass(predictions),
            "fewer_shots": sum("shots" in p and p["shots"] != self.shots for p in predictions),
            "labels": list(LETTERS),
        }

    def line(self, results: Mapping[str, Any]) -> str:
        """Return accuracy, interval, n, majority and label mass."""
        return f"{accuracy_line(results)}  label mass {results['label_mass']:.2f}"

    def warnings(self, results: Mapping[str, Any]) -> list[str]:
        """Warn of letters that the model would hardly say, and of prompts that did not fit."""
        fewer = results["fewer_shots"]
        cut = []
        if fewer:
            cut = [f"{counted(fewer, 'prompt')} with fewer shots, to fit the context"]
        return mass_warnings(results["label_mass"], "letters") + cut + Task.warnings(self, results)

    def finish(self, out: Path, models: Sequence[str]) -> None:
        """Write and show the groups' table."""
        scores = read_groups(out, models, in_groups([exam.subject for exam in self.exams.values()]))
        table = group_table(scores)
        write_text(out / TABLE, f"{table}\n")
        write_json(out / SCORES, scores)
        click.echo(f"\n{table}")

    def table(self, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Figure]:
        """Return the average over subjects alone."""
        average = group_score(list(found.values()))
        mean = Figure(average["accuracy"], average["ci95"], average["n"], average["majority"])
        return {"accuracy, average over subjects": mean}


def _few_shot(job: Job, exam: Exam) -> Scorer:
    """Return what chooses after the exam's questions, with as many of its examples as fit the context, and
    tells how many that were."""

    def encode(text: str) -> list[int]:
        return job.candidate.prompting.encode([{"role": "user", "content": text}])

    made = [prompt(exam, row, encode, job.model.context) for row in range(len(job.rows))]
    ids = {row: ids for row, (ids, _) in enumerate(made)}
    scorer = choosing(job.model, ids, {letter: [letter] for letter in LETTERS}, job.opened.budget)

    def score(batch: Sequence[int]) -> list[Fields]:
        answers = scorer.score(batch)
        return [{**fields, "shots": made[row][1]} for row, fields in zip(batch, answers, strict=True)]

    return replace(scorer, score=score)


def _plain(opened: Opened) -> Opened:
    """Return the models asked with the text alone, begun as the tokenizer begins a text."""
    tokenizer = opened.local.tokenizer
    digest = hashlib.sha256(b"").hexdigest()

    def encode(messages: list[dict[str, str]]) -> list[int]:
        return list(tokenizer(messages[-1]["content"])["input_ids"])

    candidates = [
        replace(one, prompting=replace(one.prompting, encode=encode, source=PLAIN, digest=digest))
        for one in opened.candidates
    ]
    return replace(opened, candidates=candidates)


def read_groups(out: Path, models: Sequence[str], groups: Mapping[str, Sequence[str]]) -> Scores:
    """Return each model's score in every group, and over all sets, of results in OUT/model/set."""
    every = {**groups, AVERAGE: list(dict.fromkeys(name for group in groups.values() for name in group))}
    found = {
        model: {name: read_object(out / model / name / RESULTS) for name in every[AVERAGE]}
        for model in models
    }
    return {
        model: {group: group_score([results[name] for name in members]) for group, members in every.items()}
        for model, results in found.items()
    }


def group_score(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return as JSON values the mean accuracy of sets by their results.json, every set counting alike, with
    its 95 % limits, and beside it (`over_questions`) the share of all questions taken as one."""
    mean = average([Measured(one["accuracy"], one["n"], one["stderr"], one["ci95"]) for one in results])
    majority = sum(one["majority"] for one in results) / len(results)
    right = sum(round(one["accuracy"] * one["n"]) for one in results)
    return {
        "sets": len(results),
        "n": mean.n,
        "accuracy": mean.value,
        "ci95": mean.ci95,
        "majority": majority,
        "over_questions": right / mean.n,
    }


def group_table(scores: Scores) -> str:
    """Return groups as rows and models as columns, the two averages last."""
    first = next(iter(scores.values()))
    rows = []
    for group, one in first.items():
        shares = (interval((own[group]["accuracy"], *own[group]["ci95"])) for own in scores.values())
        rows.append([group, str(one["sets"]), f"{one['n']:,}", percent(one["majority"]), *shares])
    last = first[AVERAGE]
    overall = (percent(own[AVERAGE]["over_questions"]) for own in scores.values())
    rows.append([QUESTIONS, str(last["sets"]), f"{last['n']:,}", "", *overall])
    return grid(Table(["accuracy (95 % interval)", "subjects", "n", "majority", *scores], rows))


if __name__ == "__main__":
    run(cli)
