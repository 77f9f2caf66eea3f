"""The models of a run: the base, loaded once, and what stands beside it; in vLLM; or behind a server."""

import contextlib
import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from tuneyard.adapters.store import open_adapter
from tuneyard.adapters.weighted import (
    WeightedAdapter,
    check_adapter_base,
    open_weighted,
    parse_optional_weight,
    parse_reference_weight,
)
from tuneyard.core.adapter_files import CONFIG
from tuneyard.core.errors import RequestError, counted
from tuneyard.core.files import names_folder
from tuneyard.core.supervision import Turns
from tuneyard.core.training_run import model_sha256
from tuneyard.eval.backends import shards
from tuneyard.eval.backends.apply import applied, check_fits
from tuneyard.eval.backends.engine import Engine, EngineGenerator, load_engine
from tuneyard.eval.backends.generate import LocalGenerator
from tuneyard.eval.backends.load import Model, find_model, load_model
from tuneyard.eval.backends.scorers import Generator
from tuneyard.eval.backends.server import Server, check_url
from tuneyard.eval.backends.vision import open_vision
from tuneyard.eval.datasets.dataset import EvalDataset
from tuneyard.eval.datasets.prompts import AFTER_BOS, Prompting, choose_prompting, other_prompt
from tuneyard.eval.read.results import MERGED
from tuneyard.eval.scoring.options import ScoringRequest

BASE = "base"
BATCH_TOKENS = {"cpu": 2048, "cuda": 32768, "vllm": 0}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model of the table: the base (no parts) or adapters, how it is asked, after how many shots."""

    name: str
    parts: tuple[WeightedAdapter, ...]
    prompting: Prompting
    shots: int = 0

    @property
    def identity(self) -> str:
        """What must be the same in a run that is resumed."""
        if not self.parts:
            return f"no adapter, {counted(self.shots, 'shot')}" if self.shots else "no adapter"
        if [part.weight for part in self.parts] == [1.0]:
            return self.parts[0].adapter.digest
        told = "+".join(f"{part.adapter.digest}:{part.weight!r}" for part in self.parts)
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def adapters(self) -> dict[str, WeightedAdapter]:
        """The adapters by name (by folder where two have one name)."""
        names = [part.adapter.name for part in self.parts]
        return {
            name if names.count(name) == 1 else str(part.adapter.folder): part
            for name, part in zip(names, self.parts, strict=True)
        }


@dataclass(frozen=True, slots=True)
class Opened:
    """A loaded base (or a server), the hash of its files, and all that is to be asked of it."""

    model: Model | Engine | Server
    digest: str
    candidates: list[Candidate]
    budget: int
    merged: bool

    def seeing(self, request: ScoringRequest, sets: Sequence[EvalDataset]) -> "Opened":
        """Return the models as they are shown images, one row at a time, where a set has some."""
        pixels = next((one.pixels for one in sets if one.images), None)
        if pixels is None:
            return self
        model = self.local
        vision = open_vision(model.net, model.tokenizer, request.template or "", request.think, pixels)
        seeing = replace(model, alone=True, vision=vision)
        return replace(self, model=seeing, budget=1)

    def with_shots(self, sets: Sequence[EvalDataset]) -> "Opened":
        """Return the models and, after the base, the base with the sets' examples before each question."""
        count = next((len(one.shots.rows) for one in sets if one.shots), 0)
        if not count:
            return self
        base = next((one for one in self.candidates if not one.parts), None)
        if base is None:
            raise RequestError("--shots prompts the base with examples: leave out --no-base")
        name = f"{base.name} ({counted(count, 'shot')})"
        if name in (one.name for one in self.candidates):
            raise RequestError(f"--adapter {name}: --shots names the base so: another name")
        place = self.candidates.index(base) + 1
        added = replace(base, name=name, shots=count)
        return replace(self, candidates=[*self.candidates[:place], added, *self.candidates[place:]])

    @contextlib.contextmanager
    def applied(self, candidate: Candidate) -> Iterator[None]:
        """Let the model answer as `candidate` while the context lasts."""
        if isinstance(self.model, Model):
            with applied(self.model, candidate.parts, merged=self.merged):
                yield
        else:  # told with each question, or has none
            yield

    @property
    def local(self) -> Model:
        """The model in this process; `RequestError` for others, which show no probabilities."""
        if not isinstance(self.model, Model):
            raise RequestError(
                "--backend openai and vllm only generate: this needs probabilities, leave it out"
            )
        return self.model

    def generator(self, candidate: Candidate, *, sampled: bool = False, repeat: int = 1) -> Generator:
        """Return who generates the candidate's answers: greedy ones, or drawn as its settings say.

        `repeat` is which of several draws it is.
        """
        if isinstance(self.model, Server):
            return self.model
        if isinstance(self.model, Engine):
            folder = candidate.parts[0].adapter.folder if candidate.parts else None
            return EngineGenerator(self.model, candidate.prompting.encode, folder)
        sampling = self.model.sampling if sampled else None
        return LocalGenerator(self.model, candidate.prompting.encode, self.budget, sampling, repeat)


def open_models(request: ScoringRequest) -> Opened:
    """Open every adapter, load the base once, and check that they belong together."""
    if request.backend == "openai":
        return _open_server(request)
    return load_candidates(request, *open_adapters(request))


def load_candidates(
    request: ScoringRequest, reference: str, wanted: Mapping[str, tuple[WeightedAdapter, ...]]
) -> Opened:
    """Load the base and check that each adapter was made for it and is asked as it was trained."""
    if request.url is not None:
        raise RequestError("--url is for --backend openai: without it, the model here would be prompted")
    if request.quantize and request.apply == MERGED:
        raise RequestError("--apply merged adds into plain weights, --quantize leaves none: give one of them")
    if request.backend == "vllm" and (request.quantize or request.apply == MERGED):
        raise RequestError("--backend vllm takes no --quantize and no --apply merged")

    shards.start()
    folder = find_model(reference)
    parts = [part for parts in wanted.values() for part in parts]
    adapters = {part.adapter.folder: part.adapter for part in parts}
    for adapter in adapters.values():
        if unchecked := check_adapter_base(adapter, folder, reference, same=request.same_base):
            click.echo(f"warning: {unchecked}", err=True)
    model: Model | Engine
    if request.backend == "vllm":
        model = load_engine(folder, request.dtype, parts)
    else:
        model = load_model(folder, request.dtype, request.quantize)
        for adapter in adapters.values():
            check_fits(model, adapter)

    @functools.cache
    def ask(*beside: Path) -> Prompting:
        return choose_prompting(model.tokenizer, beside, request.template, request.think, request.bos)

    candidates = [
        Candidate(name, own, ask(*(part.adapter.folder for part in own))) for name, own in wanted.items()
    ]
    if request.bos and all(one.prompting.source != AFTER_BOS for one in candidates):
        raise RequestError("--bos is for models without a chat template: here a template begins the prompt")
    if request.template and isinstance(model, Model):
        _check_template(model, candidates[0].prompting, request.template)
    for beside in adapters if not request.think else ():
        if told := other_prompt(model.tokenizer, beside, ask(beside), request.template):
            click.echo(f"warning: adapter {told}", err=True)
    alone = isinstance(model, Model) and model.alone  # one row a batch, whatever --batch-tokens says
    budget = 1 if alone else request.batch_tokens or BATCH_TOKENS[model.device]
    return Opened(model, model_sha256(folder), candidates, budget, request.apply == MERGED)


def _check_template(model: Model, prompting: Prompting, name: str) -> None:
    """Refuse a template whose own tokens lie beyond the model's embeddings: it is of another family."""
    turns = [{"role": role, "content": "?"} for role in ("system", "user", "assistant", "user")]
    largest = max(prompting.encode(turns), default=0)
    rows = model.net.get_input_embeddings().num_embeddings
    if largest >= rows:
        raise RequestError(
            f"--template {name}: it needs tokens that the model does not have (number {largest} of {rows}): "
            "it is for other models; leave it out for the model's own chat template"
        )


def _open_server(request: ScoringRequest) -> Opened:
    if request.adapters or not request.url:
        raise RequestError("--backend openai needs --url and --mode generate, and takes no --adapter")
    if request.bos:
        raise RequestError("--bos: the server makes the prompt: leave it out")
    server = Server(check_url(request.url), request.model)
    digest = hashlib.sha256(f"{server.url} {server.name}".encode()).hexdigest()
    prompting = Prompting(lambda _: [], lambda _: Turns([]), "the server's own", digest)
    name = Path(request.model).name
    if not names_folder(name):
        raise RequestError(f"--model {request.model!r}: expected a name that can name a folder")
    return Opened(server, digest, [Candidate(name, (), prompting)], request.batch_tokens or 0, merged=False)


def open_adapters(request: ScoringRequest) -> tuple[str, dict[str, tuple[WeightedAdapter, ...]]]:
    """Return base and models by name, a LoRA --model among them; `RequestError` for bad names or none."""
    candidates: dict[str, tuple[WeightedAdapter, ...]] = {} if request.no_base else {BASE: ()}
    reference = request.model
    if (Path(reference) / CONFIG).is_file():
        own = open_adapter(Path(reference))
        if own.lora.base is None:
            raise RequestError(
                f"{reference}: its config names no base: --model BASE --adapter {own.name}={reference}"
            )
        reference, candidates[own.name] = own.lora.base, (WeightedAdapter(own, 1.0),)
    for text in request.adapters:
        name, _, given = text.partition("=")
        if not names_folder(name) or name == BASE or name in candidates:
            raise RequestError(f"--adapter {text}: expected NAME=DIR with a new NAME that can name a folder")
        given = given or name
        if "+" not in given or Path(given).is_dir():
            parts = [parse_optional_weight(given)]
        else:  # several with their weights: rte:0.5+mnli:0.5
            parts = [parse_reference_weight(part) for part in given.split("+")]
        candidates[name] = tuple(open_weighted(parts))
    if not candidates:
        raise RequestError("--no-base without --adapter leaves nothing to score")
    return reference, candidates
