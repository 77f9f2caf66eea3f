"""python -m eval.prove --model BASE --adapter NAME --fused DIR --gguf FILE --modelfile FILE --dataset NAME …

Prove that what was trained is what is scored and what is served: the same token ids by every way of
making prompts, the same answers from the unmerged adapter, the fused model and the GGUF. docs/eval-prove.md.

The first way of making prompts is the reference for the others: LLaMA-Factory's template if it is known,
otherwise the chat template of the scoring. The live adapter's answers are the reference for what is served:
every model reads the same ids.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneyard.core import version
from tuneyard.core.cli import cli_command, command_line
from tuneyard.core.errors import ContentError, RequestError, counted, run, show_value
from tuneyard.core.files import sha256, versions, write_json, write_text
from tuneyard.core.number_format import Table, grid
from tuneyard.core.prompt import Encode, Message, chat_encoder, llamafactory_encoder, saved_chat_template
from tuneyard.eval.backends.load import check_gguf, find_model, load_gguf, load_gguf_tokenizer, load_model
from tuneyard.eval.backends.modelfile import ServedModelfile, read_modelfile
from tuneyard.eval.backends.scorers import choosing, refuse, score_all
from tuneyard.eval.datasets.dataset import INDEPENDENT, EvalDataset, read_datasets
from tuneyard.eval.datasets.prompts import trained_template
from tuneyard.eval.metrics.labels import MOST, spellings
from tuneyard.eval.scoring.candidates import Candidate, Opened, open_models
from tuneyard.eval.scoring.options import PATH, Finite, ScoringRequest, data_options, dtype, number, same_base
from tuneyard.eval.scoring.task import Job

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COMPARED = ("template", "fused", "gguf", "modelfile")
PROMPTS = ("prompts made by", "dataset", "examples", "different ids", "first")
ANSWERS = ("answers of", *PROMPTS[1:3], "flips", "largest difference, nats", "different texts", "first")

SERVED = ("fused", "gguf", "modelfile")
PACKAGES = ("torch", "transformers", "tokenizers", "llamafactory", "gguf")
SHOWN = 8  # tokens of which the text is given
Ids = Sequence[int]
Decode = Callable[[Ids], str]


@dataclass(frozen=True, slots=True)
class FirstDifference:
    """The first token in which two sequences of a row differ: its place, both ids (None past the end), and
    the texts of this token and the seven after it."""

    row: int
    place: int
    expected: int | None
    found: int | None
    expected_text: str
    found_text: str


@dataclass(frozen=True, slots=True)
class PromptProof:
    """One way to make prompts against the reference's, on the rows of a set."""

    way: str
    dataset: str
    n: int
    differing: int
    first: FirstDifference | None

    @property
    def equal(self) -> bool:
        """Whether every row has the same token ids."""
        return self.differing == 0


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model answers to each row: the tokens that it generates and, of a set of labels, their
    log-probabilities."""

    tokens: Mapping[int, Ids]
    labels: Mapping[int, Mapping[str, float]] | None


@dataclass(frozen=True, slots=True)
class AnswerProof:
    """One model's answers against the unmerged adapter's, on the rows of a set.

    `flips` are the rows whose likeliest label, or without labels generated text, is another. `largest` is the
    largest difference of a label's log-probability in nats, in `largest_row`; None without labels.
    `differing` counts the rows whose generated tokens differ, `first` is the first of them.
    """

    model: str
    dataset: str
    n: int
    flips: Sequence[int]
    largest: float | None
    largest_row: int | None
    differing: int
    first: FirstDifference | None


@dataclass(frozen=True, slots=True)
class Proof:
    """What was compared with the way `reference` and the unmerged adapter, what was not, and made of what."""

    reference: str
    prompts: Sequence[PromptProof]
    answers: Sequence[AnswerProof]
    unchecked: Sequence[str]
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Compared:
    """What the adapter is compared with: the template of its training, and what is served."""

    template: str | None
    fused: Path | None
    gguf: Path | None
    modelfile: Path | None


@dataclass(frozen=True, slots=True)
class Tolerance:
    """What may differ: answers that flip, and a label's log-probability in nats. Prompts may not."""

    flips: int
    nats: float

    def allows(self, answer: AnswerProof) -> bool:
        """Whether a model's answers differ by no more than that."""
        return len(answer.flips) <= self.flips and (answer.largest or 0.0) <= self.nats


@cli_command(
    "prove",
    "tuneyard adapter fuse demo-rte --base models/demo-base --dtype fp32 --out saves/fused",
    "tuneyard eval prove --model models/demo-base --adapter demo-rte --fused saves/fused "
    "--dataset demo_rte_eval --limit 4 --out results/parity",
)
@click.option("--model", required=True, metavar="DIR|ID", help="The base (or a LoRA folder that names it).")
@click.option("--adapter", metavar="NAME[=DIR]", help="The adapter; NAME alone means saves/NAME.")
@same_base
@click.option(
    "--template", metavar="NAME", help="LLaMA-Factory's template of the training. [its training.json]"
)
@click.option("--fused", type=PATH, metavar="DIR", help="The model that `tuneyard adapter fuse` wrote.")
@click.option(
    "--gguf", type=PATH, metavar="FILE", help="The model that `tuneyard adapter export --to gguf` made."
)
@click.option(
    "--modelfile", type=PATH, metavar="FILE", help="What `tuneyard adapter export --to ollama` made."
)
@data_options
@number("--limit", "The first N examples of each dataset.", default=100)
@number("--max-new-tokens", "The longest answer that is generated.", default=16)
@dtype
@click.option(
    "--flips",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    metavar="N",
    help="Answers that may differ, for each model and dataset.",
)
@click.option(
    "--tolerance",
    type=Finite(0),
    default=0.1,
    show_default=True,
    metavar="NATS",
    help="By how much a label's log-probability may differ.",
)
@click.option("--out", required=True, type=PATH, metavar="DIR", help="Folder for prove.md and prove.json.")
def cli(out: Path, adapter: str | None, flips: int, tolerance: float, **given: Any) -> None:
    """Compare prompts and answers from training to serving; exit 1 where they differ.

    Prompts must have the same token ids. Answers may differ by --flips and --tolerance.
    """
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out}: a file; expected a folder")
    compared = {name: given.pop(name) for name in COMPARED}
    if not any(compared.values()):
        raise RequestError(f"nothing to compare with: name {', '.join(f'--{name}' for name in COMPARED)}")
    adapters = (adapter,) if adapter else ()
    request = ScoringRequest(out=out, adapters=adapters, no_base=True, **given)
    allowed = Tolerance(flips, tolerance)
    proof = prove(request, Compared(**compared))
    page = markdown(proof, allowed)
    write_text(out / "prove.md", page)
    write_json(out / "prove.json", to_json(proof, allowed, command_line("eval.prove")))
    click.echo(page, nl=False)
    if not holds(proof, allowed):
        raise ContentError(f"not equal, see {out / 'prove.md'}")


def prove(request: ScoringRequest, compared: Compared) -> Proof:
    """Compare prompts and answers on the first rows of every set. Errors are those of its inputs."""
    sets = read_datasets(request.datasets, request.data, INDEPENDENT)
    served = read_modelfile(compared.modelfile) if compared.modelfile else None
    if compared.gguf:
        check_gguf(compared.gguf)
    opened = open_models(request)
    if len(opened.candidates) != 1:
        raise RequestError(f"{request.model} is an adapter itself: leave --adapter out")
    (candidate,) = opened.candidates
    trained = {trained_template(part.adapter.folder) for part in candidate.parts}
    template = compared.template or (trained.pop() if len(trained) == 1 else None)
    tokenizer = opened.local.tokenizer
    ways = dict(_ways(replace(compared, template=template), candidate, tokenizer, served))
    reference, scored = next(iter(ways)), candidate.prompting.source
    unchecked = [f"no --{option}" for option in SERVED if getattr(compared, option) is None]
    if template is None:
        unchecked.insert(0, "training's template: no recipe beside the adapter names one (--template NAME)")
    jobs = [Job(request, opened, candidate, one) for one in sets]
    prompts: list[PromptProof] = []
    fitting = {}
    for job in jobs:
        name, talks = job.dataset.name, [asked.messages for asked in job.rows]
        ids = {way: dict(enumerate(map(encode, talks))) for way, encode in ways.items()}
        prompts += [
            prove_prompts(way, name, ids[reference], found, tokenizer.decode)
            for way, found in ids.items()
            if way != reference
        ]
        refused = refuse(ids[scored], request.max_new_tokens, opened.local.context)
        fitting[name] = [row for row in ids[scored] if row not in refused]
        if refused:
            unchecked.append(f"answers to {counted(len(refused), 'row')} of {name}: too long for the context")
    answers = list(_answers(jobs, compared, fitting))
    return Proof(reference, prompts, answers, unchecked, _facts(request, compared, opened, sets))


def _ways(
    compared: Compared,
    candidate: Candidate,
    tokenizer: "PreTrainedTokenizerBase",
    served: ServedModelfile | None,
) -> Iterator[tuple[str, Encode]]:
    """Every way in which a prompt is made between training and serving, training's first."""
    if compared.template is not None:  # "": the recipe names none
        read = "LLaMA-Factory's reading of the base's chat template (the recipe names no template)"
        way = f"LLaMA-Factory template {compared.template}" if compared.template else read
        yield way, llamafactory_encoder(tokenizer, compared.template)
    yield candidate.prompting.source, candidate.prompting.encode
    if compared.fused:
        from transformers import AutoTokenizer

        own = AutoTokenizer.from_pretrained(find_model(str(compared.fused)), trust_remote_code=False)
        encode = chat_encoder(own, saved_chat_template(compared.fused))
        yield f"chat template and tokenizer of {compared.fused}", encode
    if compared.gguf:
        own = load_gguf_tokenizer(compared.gguf)
        template = own.chat_template if isinstance(own.chat_template, str) else None
        yield f"chat template and tokenizer in {compared.gguf}", chat_encoder(own, template)
    if served:

        def as_ollama(messages: list[Message]) -> list[int]:
            """A beginning-of-text token is added where the tokenizer adds one by itself."""
            return list(tokenizer(served.render(messages))["input_ids"])

        yield f"TEMPLATE of {compared.modelfile}", as_ollama


def _answers(
    jobs: Sequence[Job], compared: Compared, rows: Mapping[str, Sequence[int]]
) -> Iterator[AnswerProof]:
    """Every served model's answers against the unmerged adapter's; one of them is loaded beside the base."""
    opened, base = jobs[0].opened, jobs[0].model
    models = [path for path in (compared.fused, compared.gguf) if path]
    if not models:
        return
    with opened.applied(jobs[0].candidate):
        live = [_ask(job, rows[job.dataset.name]) for job in jobs]
    for path in models:
        other = load_gguf(path, base) if path == compared.gguf else load_model(path, base.dtype)
        beside = replace(opened, model=other)
        for job, expected in zip(jobs, live, strict=True):
            name = job.dataset.name
            found = _ask(replace(job, loaded=beside), rows[name])
            yield prove_answers(str(path), name, expected, found, base.tokenizer.decode)


def _ask(job: Job, rows: Sequence[int]) -> Answers:
    """The tokens of the text that the model generates, and of a set of labels their log-probabilities."""
    said = score_all(job.generating(job.messages(rows)), "generating")
    texts = [str(fields["model_output"]) for fields in said.values()]
    ids = job.model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    tokens = dict(zip(said, ids, strict=True))
    labels = sorted(set(job.dataset.answers))
    if not 1 < len(labels) <= MOST or "" in labels:
        return Answers(tokens, None)
    forms = {label: spellings(label) for label in labels}
    chosen = score_all(choosing(job.model, job.prompts(rows), forms, job.opened.budget), "labels")
    return Answers(tokens, {row: fields["choices"] for row, fields in chosen.items()})


def _facts(
    request: ScoringRequest, compared: Compared, opened: Opened, sets: Sequence[EvalDataset]
) -> dict[str, object]:
    parts = opened.candidates[0].parts
    files = {name: path for name in ("gguf", "modelfile") if (path := getattr(compared, name))}
    return {
        "model": request.model,
        "adapters": [{"folder": str(part.adapter.folder), "weight": part.weight} for part in parts],
        "dtype": opened.local.dtype,
        "device": opened.local.device,
        "limit": request.limit,
        "max_new_tokens": request.max_new_tokens,
        "hashes": {
            "model": opened.digest,
            **{f"adapter {part.adapter.name}": part.adapter.digest for part in parts},
            **{name: sha256(path) for name, path in files.items()},
            **{f"set {one.name}": one.digest for one in sets},
        },
        "versions": versions(*PACKAGES),
        "tuneyard": version(),
    }


def prove_prompts(
    way: str, dataset: str, expected: Mapping[int, Ids], found: Mapping[int, Ids], decode: Decode
) -> PromptProof:
    """Compare two ways' token ids row by row."""
    return PromptProof(way, dataset, len(expected), *_compare(expected, found, decode))


def prove_answers(model: str, dataset: str, expected: Answers, found: Answers, decode: Decode) -> AnswerProof:
    """Compare a model's answers with the reference's."""
    tokens, ours, theirs = expected.tokens, expected.labels, found.labels
    flips = [row for row in tokens if tokens[row] != found.tokens[row]]
    largest, largest_row = None, None
    if ours is not None and theirs is not None:
        flips = [row for row in ours if _likeliest(ours[row]) != _likeliest(theirs[row])]
        largest, largest_row = max(
            (max(abs(ours[row][label] - theirs[row][label]) for label in ours[row]), row) for row in ours
        )
    differing = _compare(tokens, found.tokens, decode)
    return AnswerProof(model, dataset, len(tokens), flips, largest, largest_row, *differing)


def first_difference(row: int, expected: Ids, found: Ids, decode: Decode) -> FirstDifference | None:
    """Return the first token in which two sequences differ, None if they are equal."""
    for place, (one, other) in enumerate(zip_longest(expected, found)):
        if one != other:
            texts = (decode(ids[place : place + SHOWN]) for ids in (expected, found))
            return FirstDifference(row, place, one, other, *texts)
    return None


def _compare(
    expected: Mapping[int, Ids], found: Mapping[int, Ids], decode: Decode
) -> tuple[int, FirstDifference | None]:
    """How many rows differ, and where the first of them does."""
    rows = (first_difference(row, ids, found[row], decode) for row, ids in expected.items())
    differing = [one for one in rows if one]
    return len(differing), next(iter(differing), None)


def _likeliest(labels: Mapping[str, float]) -> str:
    return max(labels, key=labels.__getitem__)


def holds(proof: Proof, tolerance: Tolerance) -> bool:
    """Return whether all prompts are equal and all answers within the tolerance."""
    return not _beyond(proof, tolerance)


def verdict(proof: Proof, tolerance: Tolerance) -> str:
    """Return in a sentence what is proved, or everything that is not."""
    if wrong := _beyond(proof, tolerance):
        return f"Not equal: {'; '.join(wrong)}."
    ways = counted(1 + len({one.way for one in proof.prompts}), "way")
    rows = sum({one.dataset: one.n for one in proof.prompts}.values())
    same = f"Equal on {counted(rows, 'example')}: {ways} of making prompts give the same token ids"
    if not proof.answers:
        return f"{same}."
    models = counted(len({one.model for one in proof.answers}), "served model")
    flips = counted(sum(len(one.flips) for one in proof.answers), "flip")
    largest = max((one.largest for one in proof.answers if one.largest is not None), default=None)
    by = "" if largest is None else f", labels' log-probabilities within {largest:.2g} nats"
    return f"{same}, and the answers of {models} are the unmerged adapter's ({flips}{by})."


def _beyond(proof: Proof, tolerance: Tolerance) -> list[str]:
    """What differs by more than the tolerance allows."""
    wrong = [
        f"{one.way} gives other token ids in {one.differing} of {counted(one.n, 'row')} of {one.dataset}"
        for one in proof.prompts
        if not one.equal
    ]
    for one in proof.answers:
        if not tolerance.allows(one):
            nats = one.largest
            by = "" if nats is None else f", a label's log-probability differs by {nats:.2g} nats"
            wrong.append(
                f"{one.model} flips {len(one.flips)} of {counted(one.n, 'answer')} of {one.dataset}{by}"
            )
    return wrong


def markdown(proof: Proof, tolerance: Tolerance) -> str:
    """Return the page: the verdict, prompts, answers, what was not checked, and what is allowed."""
    prompts = [
        [one.way, one.dataset, f"{one.n:,}", f"{one.differing:,}", _first(one.first)] for one in proof.prompts
    ]
    parts = [
        "# Parity of training, scoring and serving",
        verdict(proof, tolerance),
        f"Reference of the prompts: {proof.reference}. Reference of the answers: the unmerged adapter. "
        f"Allowed: {counted(tolerance.flips, 'flip')}, {tolerance.nats:g} nats.",
        grid(Table(PROMPTS, prompts)),
    ]
    if proof.answers:
        parts.append(grid(Table(ANSWERS, [_answer(one) for one in proof.answers])))
    if proof.unchecked:
        parts.append("\n".join(f"- not checked: {what}" for what in proof.unchecked))
    return "\n\n".join(parts) + "\n"


def _answer(one: AnswerProof) -> list[str]:
    few = ", ".join(map(str, one.flips[:5])) + ("…" if len(one.flips) > 5 else "")
    flips = f"{len(one.flips)}" + (f" (row {few})" if one.flips else "")
    largest = "–" if one.largest is None else f"{one.largest:.2g} (row {one.largest_row})"
    first = _first(one.first)
    return [one.model, one.dataset, f"{one.n:,}", flips, largest, f"{one.differing:,}", first]


def _first(first: FirstDifference | None) -> str:
    if first is None:
        return ""
    sides = ((first.expected, first.expected_text), (first.found, first.found_text))
    was, now = ("the end" if token is None else f"{token} {show_value(text)}" for token, text in sides)
    return f"row {first.row}, token {first.place}: {was} became {now}"


def to_json(proof: Proof, tolerance: Tolerance, command: str) -> dict[str, object]:
    """Return the proof as plain JSON values."""
    return {
        "proved": holds(proof, tolerance),
        "verdict": verdict(proof, tolerance),
        "tolerance": asdict(tolerance),
        "reference": proof.reference,
        "prompts": [{**asdict(one), "equal": one.equal} for one in proof.prompts],
        "answers": [{**asdict(one), "within": tolerance.allows(one)} for one in proof.answers],
        "not_checked": list(proof.unchecked),
        **proof.facts,
        "command": command,
    }


if __name__ == "__main__":
    run(cli)
