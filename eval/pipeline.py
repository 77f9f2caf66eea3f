"""From a request to results: every model asked every set, in batches, with the base loaded once."""

import hashlib
import shlex
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters.config import CONFIG
from adapters.store import Adapter, open_adapter
from core.errors import RequestError
from core.files import versions, write_json
from core.prompt import Conversation
from eval.measure.answers import PARSERS
from eval.measure.labels import (
    UNKNOWN,
    check_labels,
    find_labels,
    parse_choices,
    parse_counts,
    spellings,
    summary,
)
from eval.model import shards
from eval.model.ask import Asker, Choosing, Fields, Generating, Prompts, ask_in_halves
from eval.model.prompts import Prompting, choose_prompting
from eval.model.questions import Questions, read_questions
from eval.model.server import Server, Serving
from eval.output.results import (
    RESULTS,
    Identity,
    Prediction,
    PredictionLog,
    begin_run,
    check_new,
    unless_refused,
)

if TYPE_CHECKING:
    from eval.model.load import Model

BASE = "base"
BATCH_TOKENS = {"cpu": 2048, "cuda": 32768, "server": 0}
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
    count: tuple[str, ...]
    check_generate: int
    think: bool
    backend: str
    url: str | None
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
    prompting: Prompting


def score(request: Request) -> None:
    """Score every model on every set; what can be refused is refused before anything is written."""
    check_new(request.out, resume=request.resume, force=request.force)
    if request.think and request.mode == "choice":
        raise RequestError("--think needs --mode generate: a thought would stand before the labels")
    sets = read_questions(request.datasets, request.data)
    labels = {questions.name: _labels(questions, request) for questions in sets}
    (_score_server if request.backend == "openai" else _score_here)(request, sets, labels)


def _score_here(request: Request, sets: list[Questions], labels: dict[str, list[str]]) -> None:
    reference, adapters = _open_adapters(request)

    from eval.model.live import applied, check_base, check_fits
    from eval.model.load import find_model, load_model, model_digest

    shards.start()
    folder = find_model(reference)
    model = load_model(folder, request.dtype)
    digest = model_digest(folder)
    subjects = []
    for name, adapter in adapters.items():
        if adapter:
            check_fits(model, adapter)
            check_base(adapter, folder, reference, digest)
        beside = adapter.folder if adapter else None
        prompting = choose_prompting(model.tokenizer, beside, request.template, request.think)
        subjects.append(Subject(name, adapter, prompting))
    settings = _settings(request, model, digest)
    if shards.first():
        begin_run(request.out, _identity(settings, subjects, sets), force=request.force)
    shards.wait()
    with unless_refused(request.out):
        for subject in subjects:
            with applied(model, subject.adapter, fold=request.apply == "fold"):
                for questions in sets:
                    Job(request, settings, model, subject, questions, labels[questions.name]).run()


def _score_server(request: Request, sets: list[Questions], labels: dict[str, list[str]]) -> None:
    if request.mode == "choice" or request.adapters or not request.url:
        raise RequestError("--backend openai needs --url and --mode generate, and takes no --adapter")
    server = Server(request.url.rstrip("/"), request.model)
    digest = hashlib.sha256(f"{server.url} {server.name}".encode()).hexdigest()
    subject = Subject(Path(request.model).name, None, Prompting(lambda _: [], "the server's own", digest))
    settings = _settings(request, server, digest)
    begin_run(request.out, _identity(settings, [subject], sets), force=request.force)
    with unless_refused(request.out):
        for questions in sets:
            Job(request, settings, server, subject, questions, labels[questions.name]).run()


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one set."""

    request: Request
    settings: dict[str, object]
    model: "Model | Server"
    subject: Subject
    questions: Questions
    labels: list[str]

    def run(self) -> None:
        """Ask what has not been asked yet (of several processes, each its share), write results.json last."""
        folder = self.request.out / self.subject.name / self.questions.name
        if (folder / RESULTS).is_file():
            _say(f"{self.subject.name}  {self.questions.name}  done before")
            return
        began = time.monotonic()
        asker = self._asker()
        log = PredictionLog(folder, asker.batches)
        asked = sum(map(len, log.pending))
        if shards.first():
            log.tidy()
        shards.wait()
        self._ask(asker, log)
        shards.wait()
        if shards.first():
            refused = [self._refusal(row, why) for row, why in asker.refused.items()]
            results = self._results(PredictionLog(folder, asker.batches).finish(refused))
            write_json(folder / RESULTS, results)
            seconds = time.monotonic() - began
            _say(f"{_line(results)}  {seconds:.1f} s ({asked / seconds:.1f} rows/s)")
            _warn(results)
        shards.wait()

    def _ask(self, asker: Asker, log: PredictionLog) -> None:
        from tqdm import tqdm

        mine = shards.share(log.pending)
        done = len(self._rows) - sum(map(len, mine))
        name = f"{self.subject.name} {self.questions.name}"
        quiet = not shards.first()
        with tqdm(total=len(self._rows), initial=done, desc=name, delay=2, leave=False, disable=quiet) as bar:
            for batch in mine:
                answers = ask_in_halves(asker, batch)
                log.append(self._prediction(row, a) for row, a in zip(batch, answers, strict=True))
                bar.update(len(batch))

    @property
    def _rows(self) -> list[Conversation]:
        return self.questions.conversations[: self.request.limit]

    def _prompts(self) -> dict[int, list[int]]:
        return {row: self.subject.prompting.encode(c.messages) for row, c in enumerate(self._rows)}

    def _asker(self) -> Asker:
        if isinstance(self.model, Server):
            talks = {row: c.messages for row, c in enumerate(self._rows)}
            return Serving(self.model, talks, self._parse, self.request.max_new_tokens)
        if self.request.mode == "generate":
            return self._generating(self.model, self._prompts())
        texts = {label: spellings(label, self.request.variants == "all") for label in self.labels}
        return Choosing(self.model, self._prompts(), texts, _batch_tokens(self.request, self.model.device))

    def _generating(self, model: "Model", prompts: Prompts) -> Asker:
        budget = _batch_tokens(self.request, model.device)
        return Generating(model, prompts, self._parse, self.request.max_new_tokens, budget)

    def _parse(self, text: str) -> str:
        return PARSERS[self.request.parser](text, self.labels)

    def _agreement(self, model: "Model", predictions: list[Prediction]) -> dict[str, object]:
        """Generate for some of the rows, evenly spread; return how often the parsed answer is the same."""
        count = min(self.request.check_generate, len(predictions))
        every = self._prompts()
        some = {row: every[row] for row in (i * len(every) // count for i in range(count))}
        asker = self._generating(model, some)
        said: dict[int, Fields] = {}
        for batch in asker.batches:
            said.update(zip(batch, ask_in_halves(asker, batch), strict=True))
        differing = [
            {"row": row, "generated": said[row]["model_output"]}
            for row in sorted(said)
            if self._counted(said[row]["predicted_output"]) != predictions[row]["predicted_output"]
        ]
        return {"n": len(said), "agree": len(said) - len(differing), "differing": differing}

    def _counted(self, label: object) -> object:
        """Return what a label counts as here: --count says so for labels that no row expects."""
        meant = parse_counts(self.request.count, self.labels).get(str(label), label)
        return label if meant == label or label in self.questions.answers else meant

    def _prediction(self, row: int, answer: Fields) -> Prediction:
        record, asked = self.questions.records[row], self.questions.conversations[row]
        group = {"group": record["group"]} if "group" in record else {}
        return {
            "instruction": record.get("instruction", asked.messages[-1]["content"]),
            "input": record.get("input", ""),
            "expected_output": asked.answer,
            "model_output": answer["model_output"],
            "predicted_output": self._counted(answer["predicted_output"]),
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
        checked = {}
        if self.request.check_generate and not isinstance(self.model, Server):
            checked["check_generate"] = self._agreement(self.model, predictions)
        return {
            "model": self.subject.name,
            "set": self.questions.name,
            "mode": self.request.mode,
            **summary(predictions),
            "label_mass": round(sum(masses) / len(masses), 6) if masses else None,
            "refused": sum("refused" in p for p in predictions),
            "labels": self.labels,
            **checked,
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


def _batch_tokens(request: Request, device: str) -> int:
    return request.batch_tokens or BATCH_TOKENS[device]


def _labels(questions: Questions, request: Request) -> list[str]:
    place = str(questions.path)
    labels = parse_choices(request.choices) if request.choices else find_labels(questions.answers, place)
    check_labels(questions.answers, labels, place)
    parse_counts(request.count, labels)
    return labels


def _open_adapters(request: Request) -> tuple[str, dict[str, Adapter | None]]:
    """Return the base model and the models of the table by name; a LoRA folder as --model is one of them.

    `RequestError` for a name that is taken or cannot name a folder, or if nothing is left to score.
    """
    subjects: dict[str, Adapter | None] = {} if request.no_base else {BASE: None}
    reference = request.model
    if (Path(reference) / CONFIG).is_file():
        own = open_adapter(Path(reference))
        if own.base is None:
            raise RequestError(
                f"{reference}: its config names no base: --model BASE --adapter {own.name}={reference}"
            )
        reference, subjects[own.name] = own.base, own
    for text in request.adapters:
        name, _, folder = text.partition("=")
        if not name or Path(name).name != name or name.startswith(".") or name == BASE or name in subjects:
            raise RequestError(f"--adapter {text}: expected NAME=DIR with a new NAME that can name a folder")
        subjects[name] = open_adapter(folder or name)
    if not subjects:
        raise RequestError("--no-base without --adapter leaves nothing to score")
    return reference, subjects


def _settings(request: Request, model: "Model | Server", digest: str) -> dict[str, object]:
    """Return what a run must have in common with the one that it resumes, beside adapters and data."""
    kept = ("mode", "variants", "choices", "count", "template", "apply", "limit", "check_generate", "think")
    generating = ("parser", "max_new_tokens") if request.mode == "generate" or request.check_generate else ()
    return {
        "model": digest,
        **{name: _plain(getattr(request, name)) for name in (*kept, *generating)},
        "dtype": model.dtype,
        "device": model.device,
        "batch_tokens": _batch_tokens(request, model.device),
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


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value  # as JSON gives it back


def _say(text: str) -> None:
    if shards.first():
        click.echo(text)


def _line(results: dict[str, Any]) -> str:
    low, high = results["ci95"]
    mass = f"  label mass {results['label_mass']:.2f}" if results["label_mass"] is not None else ""
    checked = results.get("check_generate")
    agree = f"  generated answers agree {checked['agree']}/{checked['n']}" if checked else ""
    return (
        f"{results['model']}  {results['set']}  {results['accuracy']:.1%} [{low:.1%}, {high:.1%}]  "
        f"n {results['n']}  majority {results['majority']:.1%}  unparsed {results['unparsed']}{mass}{agree}"
    )


def _warn(results: dict[str, Any]) -> None:
    who = f"warning: {results['model']} on {results['set']}:"
    if results["label_mass"] is not None and results["label_mass"] < LOW_MASS:
        click.echo(
            f"{who} label mass {results['label_mass']:.2f}: it would hardly say these labels", err=True
        )
    if results["refused"]:
        click.echo(f"{who} {results['refused']} prompts exceed the context and count as wrong", err=True)
