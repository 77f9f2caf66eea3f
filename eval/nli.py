"""python -m eval.nli --model models/demo-base --adapter rte --dataset alpaca_rte_eval --out results/rte

Asks a base model and any number of adapters, the base loaded once, for yes, no or maybe (or any other
labels), and writes OUT/<model>/<set>/{results.json,predictions.jsonl}. docs/eval-nli.md explains them.
"""

import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.store import Adapter, open_adapter
from core.errors import CLI, RequestError, run
from core.files import versions, write_json
from eval.measure.answers import PARSERS
from eval.measure.labels import UNKNOWN, check_labels, find_labels, parse_choices, spellings, summary
from eval.model.ask import Asker, Choosing, Fields, Generating, Prompts
from eval.model.questions import Questions, read_questions
from eval.output.results import RESULTS, Identity, Prediction, PredictionLog, begin_run, check_new

if TYPE_CHECKING:
    from eval.model.load import Model
    from eval.model.prompts import Prompting

BASE = "base"
BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
LOW_MASS = 0.5  # below this the model hardly says any of the labels, and comparing them means little
PACKAGES = ("torch", "transformers", "tokenizers")


@dataclass(frozen=True, slots=True)
class Request:
    """The command line: a field for each of its options."""

    model: str
    adapters: tuple[str, ...]
    datasets: tuple[str, ...]
    data: tuple[Path, ...]
    out: Path
    mode: str
    parser: str
    variants: str
    choices: str | None
    template: str | None
    apply: str
    dtype: str | None
    batch_tokens: int | None
    max_new_tokens: int
    limit: int | None
    no_base: bool
    resume: bool
    force: bool


@dataclass(frozen=True, slots=True)
class Subject:
    """One model of the table: the base (no adapter) or the base with an adapter, and how it is asked."""

    name: str
    adapter: Adapter | None
    prompting: "Prompting"


@click.command(context_settings=CLI)
@click.option("--model", required=True, metavar="DIR|ID", help="Model folder or hub id.")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME[=DIR]",
    help="Score this adapter too; NAME alone means saves/NAME. Repeatable.",
)
@click.option(
    "--dataset", "datasets", multiple=True, metavar="NAME", help="A registered dataset. Repeatable."
)
@click.option(
    "--data",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A JSON or JSON Lines file. Repeatable.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="Folder of the results.")
@click.option(
    "--mode",
    type=click.Choice(["choice", "generate"]),
    default="choice",
    show_default=True,
    help="Compare the labels' probabilities, or generate an answer and parse it.",
)
@click.option(
    "--parser",
    type=click.Choice(list(PARSERS)),
    default="word",
    show_default=True,
    help="generate: take the answer as a word, or search it as the published script did.",
)
@click.option(
    "--variants",
    type=click.Choice(["all", "none"]),
    default="all",
    show_default=True,
    help="choice: sum yes, Yes and both after a space, or take the bare label alone.",
)
@click.option("--choices", metavar="A,B,…", help="The labels; by default those found in the data.")
@click.option("--template", metavar="NAME", help="Ask with LLaMA-Factory's template, not the saved one.")
@click.option(
    "--apply",
    type=click.Choice(["live", "fold"]),
    default="live",
    show_default=True,
    help="Adapters exact beside the base, or rounded into its weights.",
)
@click.option("--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), help="[fp32 on CPU, bf16 on GPU]")
@click.option("--batch-tokens", type=click.IntRange(1), metavar="N", help="[2048 on CPU, 32768 on GPU]")
@click.option(
    "--max-new-tokens",
    type=click.IntRange(1),
    metavar="N",
    default=64,
    show_default=True,
    help="generate: the longest answer.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N rows of each set.")
@click.option("--no-base", is_flag=True, help="Do not score the base itself.")
@click.option("--resume", is_flag=True, help="Go on with the run in OUT; refused if anything changed.")
@click.option("--force", is_flag=True, help="Start the run in OUT anew.")
def cli(**given: Any) -> None:
    """Score yes/no/maybe questions (or any labels) with a base model and adapters on it.

    Each accuracy comes with its n, 95 % interval and the share of the commonest answer.
    """
    score(Request(**given))


def score(request: Request) -> None:
    """Score every model on every set; what can be refused is refused before anything is written."""
    check_new(request.out, resume=request.resume, force=request.force)
    sets = read_questions(request.datasets, request.data)
    labels = {questions.name: _labels(questions, request.choices) for questions in sets}
    adapters = _open_adapters(request.adapters, with_base=not request.no_base)

    from eval.model.live import applied, check_fits
    from eval.model.load import find_model, load_model, model_digest
    from eval.model.prompts import choose_prompting

    folder = find_model(request.model)
    model = load_model(folder, request.dtype)
    subjects = []
    for name, adapter in adapters.items():
        if adapter:
            check_fits(model, adapter)
        prompting = choose_prompting(model.tokenizer, adapter.folder if adapter else None, request.template)
        subjects.append(Subject(name, adapter, prompting))
    settings = _settings(request, model, model_digest(folder))
    begin_run(request.out, _identity(settings, subjects, sets), force=request.force)
    for subject in subjects:
        with applied(model, subject.adapter, fold=request.apply == "fold"):
            for questions in sets:
                job = Job(request, settings, model, subject, questions, labels[questions.name])
                click.echo(f"{subject.name}  {questions.name}  {job.run()}")


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one set."""

    request: Request
    settings: dict[str, object]
    model: "Model"
    subject: Subject
    questions: Questions
    labels: list[str]

    def run(self) -> str:
        """Ask what has not been asked yet, write results.json last, and return its line for the screen."""
        from tqdm import tqdm

        folder = self.request.out / self.subject.name / self.questions.name
        if (folder / RESULTS).is_file():
            return "done before"
        began = time.monotonic()
        rows = self.questions.conversations[: self.request.limit]
        prompts = {row: self.subject.prompting.encode(c.messages) for row, c in enumerate(rows)}
        asker = self._asker(prompts)
        log = PredictionLog(folder, asker.batches)
        asked = sum(map(len, log.pending))
        with tqdm(total=len(rows), initial=len(rows) - asked, desc=str(folder), delay=2, leave=False) as bar:
            for batch in log.pending:
                answers = asker.ask(batch)
                log.append(self._prediction(row, a) for row, a in zip(batch, answers, strict=True))
                bar.update(len(batch))
        results = self._results(log.finish(self._refusal(row, why) for row, why in asker.refused.items()))
        write_json(folder / RESULTS, results)
        _warn(results)
        seconds = time.monotonic() - began
        return f"{_line(results)}  {seconds:.1f} s ({asked / seconds:.1f} rows/s)"

    def _asker(self, prompts: Prompts) -> Asker:
        budget = batch_tokens(self.request, self.model.device)
        if self.request.mode == "choice":
            texts = {label: spellings(label, self.request.variants == "all") for label in self.labels}
            return Choosing(self.model, prompts, texts, budget)
        parser = PARSERS[self.request.parser]
        return Generating(
            self.model, prompts, lambda text: parser(text, self.labels), self.request.max_new_tokens, budget
        )

    def _prediction(self, row: int, answer: Fields) -> Prediction:
        record, asked = self.questions.records[row], self.questions.conversations[row]
        group = {"group": record["group"]} if "group" in record else {}
        return {
            "instruction": record.get("instruction", asked.messages[-1]["content"]),
            "input": record.get("input", ""),
            "expected_output": asked.answer,
            "model_output": answer["model_output"],
            "predicted_output": answer["predicted_output"],
            "idx": record.get("idx", -1),
            "row": row,
            **{key: value for key, value in answer.items() if not key.endswith("_output")},
            **group,
        }

    def _refusal(self, row: int, why: str) -> Prediction:
        return self._prediction(row, {"model_output": "", "predicted_output": UNKNOWN, "refused": why})

    def _results(self, predictions: list[Prediction]) -> dict[str, object]:
        masses = [float(str(p["label_mass"])) for p in predictions if "label_mass" in p]
        adapter = self.subject.adapter
        return {
            "model": self.subject.name,
            "set": self.questions.name,
            "mode": self.request.mode,
            **summary(predictions),
            "label_mass": round(sum(masses) / len(masses), 6) if masses else None,
            "refused": sum("refused" in p for p in predictions),
            "labels": self.labels,
            "prompt": self.subject.prompting.source,
            "settings": self.settings,
            "dtype": self.model.dtype,
            "device": self.model.device,
            "versions": versions(*PACKAGES),
            "hashes": {
                "model": self.settings["model"],
                "adapters": {adapter.name: adapter.digest} if adapter else {},
                "data": self.questions.digest,
                "chat_template": self.subject.prompting.digest,
            },
            "command": _command(),
        }


def batch_tokens(request: Request, device: str) -> int:
    """Return the tokens that a batch may hold: as asked, or what suits the device."""
    return request.batch_tokens or BATCH_TOKENS[device]


def _labels(questions: Questions, choices: str | None) -> list[str]:
    labels = parse_choices(choices) if choices else find_labels(questions.answers, str(questions.path))
    check_labels(questions.answers, labels, str(questions.path))
    return labels


def _open_adapters(wanted: tuple[str, ...], with_base: bool) -> dict[str, Adapter | None]:
    """Return the models of the table by name; `RequestError` for a name that is taken or no folder name."""
    subjects: dict[str, Adapter | None] = {BASE: None} if with_base else {}
    for text in wanted:
        name, _, folder = text.partition("=")
        if not name or Path(name).name != name or name.startswith(".") or name == BASE or name in subjects:
            raise RequestError(f"--adapter {text}: expected NAME=DIR with a new NAME that can name a folder")
        subjects[name] = open_adapter(folder or name)
    if not subjects:
        raise RequestError("--no-base without --adapter leaves nothing to score")
    return subjects


def _settings(request: Request, model: "Model", digest: str) -> dict[str, object]:
    """Return what a run must have in common with the one that it resumes, beside adapters and data."""
    kept = ("mode", "variants", "choices", "template", "apply", "limit")
    generating = ("parser", "max_new_tokens") if request.mode == "generate" else ()
    return {
        "model": digest,
        **{name: getattr(request, name) for name in (*kept, *generating)},
        "dtype": model.dtype,
        "device": model.device,
        "batch_tokens": batch_tokens(request, model.device),
        **versions(*PACKAGES),
    }


def _identity(settings: dict[str, object], subjects: list[Subject], sets: list[Questions]) -> Identity:
    return {
        "settings": settings,
        "models": {s.name: s.adapter.digest if s.adapter else "no adapter" for s in subjects},
        "prompts": {s.name: s.prompting.digest for s in subjects},
        "sets": {questions.name: questions.digest for questions in sets},
    }


def _command() -> str:
    return f"python -m eval.nli {shlex.join(a for a in sys.argv[1:] if a not in ('--resume', '--force'))}"


def _line(results: dict[str, Any]) -> str:
    low, high = results["ci95"]
    mass = f"  label mass {results['label_mass']:.2f}" if results["label_mass"] is not None else ""
    return (
        f"{results['accuracy']:.1%} [{low:.1%}, {high:.1%}]  n {results['n']}  "
        f"majority {results['majority']:.1%}  unparsed {results['unparsed']}{mass}"
    )


def _warn(results: dict[str, Any]) -> None:
    who = f"warning: {results['model']} on {results['set']}:"
    if results["label_mass"] is not None and results["label_mass"] < LOW_MASS:
        click.echo(
            f"{who} label mass {results['label_mass']:.2f}: it would hardly say these labels", err=True
        )
    if results["refused"]:
        click.echo(f"{who} {results['refused']} prompts exceed the context and count as wrong", err=True)


if __name__ == "__main__":
    run(cli)
