"""Parity of adapter, fused model, GGUF and Modelfile: same prompts, same answers, or where they differ.

The first way to make prompts is the reference for the others: LLaMA-Factory's template where it is
known, else the chat template that the adapter is scored with. The live adapter's answers to the
prompts that it is scored with are the reference for what is served: every model reads the same ids.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from core import version
from core.errors import RequestError
from core.files import sha256, versions
from core.prompt import Encode, Message, chat_encoder, llamafactory_encoder, saved_chat_template
from eval.backends.modelfile import ServedModelfile, read_modelfile
from eval.datasets.clusters import INDEPENDENT
from eval.datasets.dataset import EvalDataset, read_datasets
from eval.datasets.recipe import trained_template
from eval.metrics.labels import MOST, spellings
from eval.metrics.parity import AnswerProof, Answers, Proof, prove_answers, prove_prompts
from eval.scoring.candidates import Candidate, Opened, open_models
from eval.scoring.options import ScoringRequest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from eval.backends.load import Model

SERVED = ("fused", "gguf", "modelfile")
PACKAGES = ("torch", "transformers", "tokenizers", "llamafactory", "gguf")
Prompts = dict[int, list[int]]


@dataclass(frozen=True, slots=True)
class ParityRequest:
    """The command line, as far as it decides what is compared: a field for each option."""

    model: str
    adapter: str | None
    same_base: bool
    template: str | None
    fused: Path | None
    gguf: Path | None
    modelfile: Path | None
    datasets: tuple[str, ...]
    data: tuple[Path, ...]
    limit: int
    max_new_tokens: int
    dtype: str | None


@dataclass(frozen=True, slots=True)
class _Tuned:
    """The base with its one adapter (or several by weight), loaded, and the template of its training.

    The template is "" where the recipe names none: LLaMA-Factory then reads the base's chat template.
    """

    opened: Opened
    candidate: Candidate
    template: str | None

    @property
    def model(self) -> "Model":
        return self.opened.local


def prove(request: ParityRequest) -> Proof:
    """Compare prompts and answers on the first rows of every set. Errors are those of its inputs."""
    sets = read_datasets(request.datasets, request.data, INDEPENDENT)
    served = read_modelfile(request.modelfile) if request.modelfile else None
    if request.gguf:
        from eval.backends.gguf import check_gguf

        check_gguf(request.gguf)
    tuned = _open(request)
    ways = dict(_ways(request, tuned, served))
    reference, scored = next(iter(ways)), tuned.candidate.prompting.source
    encoded = {one.name: _encode(ways, one, request.limit) for one in sets}
    prompts = [
        prove_prompts(way, name, own[reference], found, tuned.model.tokenizer.decode)
        for name, own in encoded.items()
        for way, found in own.items()
        if way != reference
    ]
    asked, refused = _fitting(tuned.model, {name: own[scored] for name, own in encoded.items()}, request)
    answers = list(_answers(request, tuned, sets, asked))
    return Proof(
        reference,
        prompts,
        answers,
        [*_unchecked(request, tuned), *refused],
        _facts(request, tuned, sets),
    )


def _open(request: ParityRequest) -> _Tuned:
    adapters = (request.adapter,) if request.adapter else ()
    opened = open_models(
        ScoringRequest(
            model=request.model,
            out=Path(),
            adapters=adapters,
            no_base=True,
            same_base=request.same_base,
            dtype=request.dtype,
        )
    )
    if len(opened.candidates) != 1:
        raise RequestError(f"{request.model} is an adapter itself: leave --adapter out")
    (candidate,) = opened.candidates
    templates = {trained_template(part.adapter.folder) for part in candidate.parts}
    recorded = templates.pop() if len(templates) == 1 else None
    return _Tuned(opened, candidate, request.template or recorded)


def _ways(
    request: ParityRequest, tuned: _Tuned, served: ServedModelfile | None
) -> Iterator[tuple[str, Encode]]:
    """Every way in which a prompt is made between training and serving, training's first."""
    tokenizer = tuned.model.tokenizer
    if tuned.template is not None:
        read = "LLaMA-Factory's reading of the base's chat template (the recipe names no template)"
        way = f"LLaMA-Factory template {tuned.template}" if tuned.template else read
        yield way, llamafactory_encoder(tokenizer, tuned.template)
    yield tuned.candidate.prompting.source, tuned.candidate.prompting.encode
    if request.fused:
        own = _tokenizer(request.fused)
        template = saved_chat_template(request.fused)
        yield f"chat template and tokenizer of {request.fused}", chat_encoder(own, template)
    if request.gguf:
        from eval.backends.gguf import load_gguf_tokenizer

        own = load_gguf_tokenizer(request.gguf)
        template = own.chat_template if isinstance(own.chat_template, str) else None
        yield f"chat template and tokenizer in {request.gguf}", chat_encoder(own, template)
    if served:
        yield f"TEMPLATE of {request.modelfile}", _as_ollama(served, tokenizer)


def _tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    from transformers import AutoTokenizer

    from eval.backends.load import find_model

    return AutoTokenizer.from_pretrained(find_model(str(folder)), trust_remote_code=False)


def _as_ollama(served: ServedModelfile, tokenizer: "PreTrainedTokenizerBase") -> Encode:
    """Ollama's ids: a beginning-of-text token is added where the tokenizer adds one by itself."""

    def encode(messages: list[Message]) -> list[int]:
        return list(tokenizer(served.render(messages))["input_ids"])

    return encode


def _encode(ways: Mapping[str, Encode], dataset: EvalDataset, limit: int) -> dict[str, Prompts]:
    rows = dataset.conversations[:limit]
    return {way: {row: encode(c.messages) for row, c in enumerate(rows)} for way, encode in ways.items()}


def _fitting(
    model: "Model", prompts: Mapping[str, Prompts], request: ParityRequest
) -> tuple[dict[str, Prompts], list[str]]:
    """The prompts that leave room for an answer, by set, and a line on those that do not."""
    from eval.backends.scorers import refuse

    kept, lines = {}, []
    for name, own in prompts.items():
        refused = refuse(own, request.max_new_tokens, model.context)
        kept[name] = {row: ids for row, ids in own.items() if row not in refused}
        lines += [f"answers to {len(refused)} rows of {name}: too long for the context"] * bool(refused)
    return kept, lines


def _answers(
    request: ParityRequest, tuned: _Tuned, sets: Sequence[EvalDataset], prompts: Mapping[str, Prompts]
) -> Iterator[AnswerProof]:
    """Every served model's answers against the unmerged adapter's; one of them is loaded beside the base."""
    from eval.backends.gguf import load_gguf
    from eval.backends.load import load_model

    decode = tuned.model.tokenizer.decode

    def ask(model: "Model") -> dict[str, Answers]:
        budget = tuned.opened.budget
        return {
            one.name: Answers(
                _tokens(model, prompts[one.name], request.max_new_tokens, budget),
                _chosen(model, one, prompts[one.name], budget),
            )
            for one in sets
        }

    if not (request.fused or request.gguf):
        return
    with tuned.opened.applied(tuned.candidate):
        live = ask(tuned.model)
    if request.fused:
        found = ask(load_model(request.fused, tuned.model.dtype))
        yield from (prove_answers(str(request.fused), name, live[name], found[name], decode) for name in live)
    if request.gguf:
        found = ask(load_gguf(request.gguf, tuned.model))
        yield from (prove_answers(str(request.gguf), name, live[name], found[name], decode) for name in live)


def _tokens(model: "Model", prompts: Prompts, longest: int, budget: int) -> dict[int, list[int]]:
    """The tokens of the text that the model generates to each prompt."""
    from tqdm import tqdm

    from eval.backends.generate import generate
    from eval.backends.score import plan_batches

    found: dict[int, list[int]] = {}
    lengths = {row: len(ids) + longest for row, ids in prompts.items()}
    for batch in tqdm(plan_batches(lengths, budget), desc="generating", delay=2, leave=False):
        texts = generate(model, [prompts[row] for row in batch], longest)
        ids = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
        found.update(zip(batch, ids, strict=True))
    return dict(sorted(found.items()))


def _chosen(
    model: "Model", dataset: EvalDataset, prompts: Prompts, budget: int
) -> dict[int, dict[str, float]] | None:
    """Every label's log-probability after each prompt, None where a set's answers are free text."""
    from tqdm import tqdm

    from eval.backends.scorers import ChoiceScorer, score_in_halves

    labels = sorted(set(dataset.answers))
    if not 1 < len(labels) <= MOST or "" in labels:
        return None
    scorer = ChoiceScorer(model, prompts, {label: spellings(label) for label in labels}, budget)
    found: dict[int, dict[str, float]] = {}
    for batch in tqdm(scorer.batches, desc="labels", delay=2, leave=False):
        for row, fields in zip(batch, score_in_halves(scorer, batch), strict=True):
            found[row] = cast("dict[str, float]", fields["choices"])
    return dict(sorted(found.items()))


def _unchecked(request: ParityRequest, tuned: _Tuned) -> list[str]:
    missing = [f"no --{option}" for option in SERVED if getattr(request, option) is None]
    if tuned.template is not None:
        return missing
    return ["training's template: no recipe beside the adapter names one (--template NAME)", *missing]


def _facts(request: ParityRequest, tuned: _Tuned, sets: Sequence[EvalDataset]) -> dict[str, object]:
    files = {name: path for name in ("gguf", "modelfile") if (path := getattr(request, name))}
    return {
        "model": request.model,
        "adapters": [{"folder": str(p.adapter.folder), "weight": p.weight} for p in tuned.candidate.parts],
        "dtype": tuned.model.dtype,
        "device": tuned.model.device,
        "limit": request.limit,
        "max_new_tokens": request.max_new_tokens,
        "hashes": {
            "model": tuned.opened.digest,
            **{f"adapter {p.adapter.name}": p.adapter.digest for p in tuned.candidate.parts},
            **{name: sha256(path) for name, path in files.items()},
            **{f"set {one.name}": one.digest for one in sets},
        },
        "versions": versions(*PACKAGES),
        "tuneyard": version(),
    }
