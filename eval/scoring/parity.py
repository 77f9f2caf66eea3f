"""Parity of adapter, fused model, GGUF and Modelfile: same prompts, same answers, or where they differ.

The first way to make prompts is the reference for the others: LLaMA-Factory's template where it is
known, else the chat template that the adapter is scored with. The live adapter's answers to the
prompts that it is scored with are the reference for what is served: every model reads the same ids.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from tuneyard.core import version
from tuneyard.core.errors import RequestError
from tuneyard.core.files import sha256, versions
from tuneyard.core.prompt import Encode, Message, chat_encoder, llamafactory_encoder, saved_chat_template
from tuneyard.eval.backends.load import check_gguf, find_model, load_gguf, load_gguf_tokenizer, load_model
from tuneyard.eval.backends.modelfile import ServedModelfile, read_modelfile
from tuneyard.eval.backends.scorers import choosing, refuse, score_all
from tuneyard.eval.datasets.dataset import INDEPENDENT, EvalDataset, read_datasets
from tuneyard.eval.datasets.prompts import trained_template
from tuneyard.eval.metrics.labels import MOST, spellings
from tuneyard.eval.scoring.candidates import Candidate, Opened, open_models
from tuneyard.eval.scoring.options import ScoringRequest
from tuneyard.eval.scoring.task import Job

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
            unchecked.append(f"answers to {len(refused)} rows of {name}: too long for the context")
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
