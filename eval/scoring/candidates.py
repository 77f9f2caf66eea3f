"""The models of a scoring run: the base, loaded once, with its adapters, or a server's model."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

from tuneyard.adapters.model.store import open_adapter
from tuneyard.adapters.model.unlearned import unlearned_notes
from tuneyard.adapters.model.weighted import (
    WeightedAdapter,
    check_together,
    open_alone,
    open_weighted,
    parse_named,
)
from tuneyard.core.errors import RequestError, show_value
from tuneyard.core.execution import Executor
from tuneyard.core.files import names_folder, text_sha256
from tuneyard.core.language.message import _, counted
from tuneyard.core.language.messages import say, warn, warn_once
from tuneyard.core.llamafactory.prompt import Messages, Tokenizer, template_named
from tuneyard.core.llamafactory.prompt.supervision import EncodedConversation
from tuneyard.core.text.quoting import one_line
from tuneyard.core.training.training_run import model_sha256
from tuneyard.core.weights.adapter_files import CONFIG, check_base, check_here
from tuneyard.eval.data.dataset import EvalDataset
from tuneyard.eval.data.prompts import AFTER_BOS, ONE_TURN, Prompting, choose_prompting, other_prompt
from tuneyard.eval.models import Backend
from tuneyard.eval.models.backends import Connect, ModelToLoad, ServerToReach
from tuneyard.eval.models.load import find_model, open_tokenizer
from tuneyard.eval.models.replay import Replay
from tuneyard.eval.models.server import Server
from tuneyard.eval.runs.results import BASE, MERGED, read_identity
from tuneyard.eval.scoring.request import ScoringRequest

Adapters = tuple[WeightedAdapter, ...]
"""Adapters on the base, each with its weight. () is the base itself."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row of the table: the base (no adapters) or adapters on it, with its prompts and number of shots."""

    name: str
    adapters: Adapters
    prompting: Prompting
    shots: int = 0

    @property
    def identity(self) -> str:
        """Key that must be the same in a resumed run."""
        if not self.adapters:
            return f"no adapter, {counted(self.shots, 'shot', 'shots')}" if self.shots else "no adapter"
        if [weighted.weight for weighted in self.adapters] == [1.0]:
            return self.adapters[0].adapter.digest
        digests = [f"{weighted.adapter.digest}:{weighted.weight!r}" for weighted in self.adapters]
        weighted_sum = "+".join(digests)
        return text_sha256(weighted_sum)


@dataclass(frozen=True, slots=True)
class Opened:
    """A backend, and the candidates to score on it.

    With `workers`, they have the base, and the backend is for planning: it has no weights.
    """

    backend: Backend
    candidates: list[Candidate]
    workers: Executor | None = None

    def with_plain_prompts(self, source: str) -> "Opened":
        """Prompt with the text alone, under this name. It begins as the tokenizer begins any text."""
        digest = text_sha256("")
        candidates = []
        for candidate in self.candidates:
            tokenizer = candidate.prompting.tokenizer or self.backend.tokenizer
            encode = partial(_text_ids, tokenizer)
            prompting = replace(candidate.prompting, encode=encode, source=source, digest=digest)
            candidates.append(replace(candidate, prompting=prompting))
        return replace(self, candidates=candidates)

    def with_shots(self, datasets: Sequence[EvalDataset]) -> "Opened":
        """Add the base with the datasets' shots as a candidate, right after the base itself."""
        counts = [len(dataset.shots.rows) for dataset in datasets if dataset.shots]
        bases = [candidate for candidate in self.candidates if not candidate.adapters]
        if not bases:
            raise RequestError(_("--shots prompts the base with examples: leave out --no-base"))
        base = bases[0]
        name = f"{base.name} ({counted(counts[0], 'shot', 'shots')})"
        place = self.candidates.index(base) + 1
        few_shot = replace(base, name=name, shots=counts[0])
        return replace(self, candidates=[*self.candidates[:place], few_shot, *self.candidates[place:]])


def _text_ids(tokenizer: Tokenizer, messages: Messages) -> list[int]:
    return list(tokenizer(messages[-1]["content"])["input_ids"])


def open_models(request: ScoringRequest, *, chooses: bool = False, workers: Executor | None = None) -> Opened:
    """Open every adapter, load the base once, and check that they belong together.

    `chooses`: the labels' probabilities are compared, which a server must give. `workers` load the base and
    score; without them this process does.
    """
    if request.rescore:
        models = read_identity(request.rescore)["models"]
        kept = _made_elsewhere("kept outputs")
        return Opened(Replay(run=request.rescore), [Candidate(name, (), kept) for name in models])
    connect = request.backend_kind.connect
    if connect is not None:
        return _open_server(request, connect, chooses)
    reference, adapters_by_name = open_adapters(request)
    return load_candidates(request, reference, adapters_by_name, workers)


def check_loading(request: ScoringRequest) -> None:
    """`RequestError` for options that do not go with a model in this process."""
    for flag, value in {
        "--url": request.url,
        "--served-model": request.served_model,
        "--timeout": request.timeout,
    }.items():
        if value is not None:
            raise RequestError(
                _(
                    "{option} is for --backend openai: without it, the model here would be prompted",
                    option=flag,
                )
            )
    if request.quantize and request.apply == MERGED:
        raise RequestError(_("--apply merged needs plain weights, and --quantize has none: give one of them"))
    changes_weights = request.quantize or request.apply == MERGED
    if changes_weights and not request.backend_kind.changes_weights:
        raise RequestError(
            _("--backend {name} takes no --quantize and no --apply merged", name=request.backend)
        )


def load_candidates(
    request: ScoringRequest,
    reference: str,
    adapters_by_name: Mapping[str, Adapters],
    workers: Executor | None,
) -> Opened:
    """Load the base `reference` and check that each adapter belongs to it and gets its training's prompts."""
    check_loading(request)
    folder = find_model(reference)
    adapters = {weighted.adapter.folder: weighted.adapter for weighted in chain(*adapters_by_name.values())}
    for adapter in adapters.values():
        unchecked = check_base(adapter.folder, adapter.config.base, folder, reference, same=request.same_base)
        if unchecked:
            warn(unchecked)
    for unlearned in unlearned_notes(adapters.values()):
        warn_once(unlearned)
    if request.template:
        template_named(request.template, request.think)  # refuses an unknown one before the base is loaded
    model = ModelToLoad(
        folder,
        list(adapters_by_name.values()),
        request.dtype,
        request.quantize,
        request.batch_tokens,
        request.tensor_parallel or 1,
        request.pipeline_parallel or 1,
        workers,
    )
    backend = request.backend_kind.load(model)
    candidates = choose_candidates(request, backend.tokenizer, adapters_by_name)
    if request.bos:
        _check_bos([candidate.prompting for candidate in candidates])
    if request.template:
        _check_template(backend, candidates[0].prompting, request.template)
    if not request.think:
        warn_of_other_prompts(backend.tokenizer, candidates, request.template)
    backend.digest = model_sha256(folder)
    return Opened(backend, candidates, workers)


def warn_of_other_prompts(
    tokenizer: Tokenizer,
    candidates: Sequence[Candidate],
    template: str | None,
    talks: Sequence[Messages] = ONE_TURN,
) -> None:
    """Warn of each adapter that was trained with other prompts for these talks than it now gets."""
    promptings: dict[Path, Prompting] = {}
    for candidate in candidates:
        for weighted in candidate.adapters:
            promptings.setdefault(weighted.adapter.folder, candidate.prompting)
    for folder, prompting in promptings.items():
        difference = other_prompt(tokenizer, folder, prompting, template, talks)
        if difference:
            warn_once(_("adapter {name}", name=difference))


def _made_elsewhere(source: str, digest: str = "") -> Prompting:
    """The prompting of candidates whose prompts are not made here."""
    return Prompting(lambda _unused: [], lambda _unused: EncodedConversation([]), source, digest)


def choose_candidates(
    request: ScoringRequest,
    tokenizer: Tokenizer,
    adapters_by_name: Mapping[str, Adapters],
) -> list[Candidate]:
    """The candidates with the prompts of their adapters' trainings."""
    promptings = {}
    candidates = []
    for name, adapters in adapters_by_name.items():
        folders = tuple(weighted.adapter.folder for weighted in adapters)
        if folders not in promptings:
            promptings[folders] = choose_prompting(
                tokenizer, folders, request.template, request.think, request.bos, request.day
            )
        candidates.append(Candidate(name, adapters, promptings[folders]))
    return candidates


def _check_template(backend: Backend, prompting: Prompting, name: str) -> None:
    """Refuse a template of another model family: its tokens are beyond the model's embeddings."""
    turns = [{"role": role, "content": "?"} for role in ("system", "user", "assistant", "user")]
    largest = max(prompting.encode(turns), default=0)
    rows = backend.vocabulary
    if largest >= rows:
        raise RequestError(
            _(
                "--template {name}: it needs tokens that the model does not have (number {largest} "
                "of {rows}): it is for other models; leave it out for the model's own chat template",
                name=name,
                largest=largest,
                rows=rows,
            )
        )


def _open_server(request: ScoringRequest, connect: Connect, chooses: bool) -> Opened:
    """A server that applies its own chat template or, if it `chooses`, gets token ids."""
    if request.adapters:
        text = request.adapters[0]
        name, _unused = parse_named(text)
        raise RequestError(
            _(
                "--adapter {text}: --backend {backend} scores what the server serves. Leave --adapter "
                "out; add --served-model {name} if the server offers it",
                text=text,
                backend=request.backend,
                name=name,
            )
        )
    if not request.url:
        raise RequestError(
            _(
                "--backend {name} needs the server's address: add --url, such as --url "
                "http://localhost:8000/v1",
                name=request.backend,
            )
        )
    name = request.served_model or request.model
    candidate_name = Path(name).name
    if not names_folder(candidate_name):
        option = "--served-model" if request.served_model else "--model"
        raise RequestError(
            _("{option} {name!r}: expected a name that can name a folder", option=option, name=name)
        )
    if chooses:
        tokenizer, ends = open_tokenizer(request.model)
        prompting = choose_prompting(tokenizer, (), request.template, request.think, request.bos, request.day)
        if request.bos:
            _check_bos([prompting])
    elif request.bos:
        raise RequestError(_("--bos: the server makes the prompt: leave it out"))
    server = connect(ServerToReach(request.url, request.served_model, request.model, request.timeout))
    _warn_of_adapters(server, request.served_model, candidate_name)
    if chooses:
        server = server.with_labels(tokenizer, ends)
    else:
        if server.model.name != name and not request.served_model:
            say(
                _("{url}: its only model is {model}", url=server.url, model=show_value(server.model.name)),
                to_stderr=True,
            )
        prompting = _made_elsewhere("the server's own", server.digest)
    server.budget = request.batch_tokens or 0
    return Opened(server, [Candidate(candidate_name, (), prompting)])


def _check_bos(promptings: Sequence[Prompting]) -> None:
    """Refuse --bos where a chat template begins every prompt."""
    if all(prompting.source != AFTER_BOS for prompting in promptings):
        raise RequestError(
            _("--bos is for models without a chat template: here a template begins the prompt")
        )


def _warn_of_adapters(server: Server, served_model: str | None, candidate_name: str) -> None:
    """Warn of adapters that the server applies, and whose results would pass for those of another model."""
    for offer in server.offers if server.model.number is None else ():
        if not offer.scale or served_model in offer.names:
            continue
        word = one_line(shlex.quote(offer.name))
        warn(
            _(
                "{url}: it applies the adapter {name} to every request, and the results have the "
                "name {other}. For the adapter under its own name, add --served-model {model}",
                url=server.url,
                name=show_value(offer.name),
                other=candidate_name,
                model=word,
            )
        )


def open_adapters(request: ScoringRequest) -> tuple[str, dict[str, Adapters]]:
    """The reference of the base, and the weighted adapters of each candidate by its name.

    `--model` may be a LoRA folder: it is a candidate, and its config names the base.
    `RequestError` for bad names, and if no candidate is left.
    """
    candidates: dict[str, Adapters] = {} if request.no_base else {BASE: ()}
    reference = request.model
    if (Path(reference) / CONFIG).is_file():
        adapter = open_alone(Path(reference), open_adapter, None)
        if adapter.config.base is None:
            raise RequestError(
                _(
                    "{path}: its config names no base: --model BASE --adapter {name}={path}",
                    path=reference,
                    name=adapter.name,
                )
            )
        check_here(adapter.config.path, adapter.config.base, f"--adapter {reference} --model")
        reference = adapter.config.base
        candidates[adapter.name] = (WeightedAdapter(adapter, 1.0),)
    for text in request.adapters:
        name, references = parse_named(text)
        if not names_folder(name) or name == BASE:
            raise RequestError(
                _("--adapter {text}: expected NAME=PATH with a NAME that can name a folder", text=text)
            )
        if name in candidates:
            raise RequestError(
                _(
                    "--adapter {text}: another model is called {name}: give a new NAME, NAME=PATH",
                    text=text,
                    name=name,
                )
            )
        opened = open_weighted(references, open_adapter, Path(reference))
        check_together(opened)
        candidates[name] = tuple(opened)
    if not candidates:
        raise RequestError(_("--no-base without --adapter leaves nothing to score"))
    return reference, candidates
