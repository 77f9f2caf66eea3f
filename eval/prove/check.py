"""Carry out a parity check: open the models and servers, compare prompts, then answers."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tuneyard.adapters.model.weighted import WeightedAdapter
from tuneyard.core.errors import RequestError
from tuneyard.core.files import sha256, versions
from tuneyard.core.installation.checkout import version
from tuneyard.core.language.message import _, counted, joined
from tuneyard.core.language.messages import warn
from tuneyard.core.llamafactory.prompt import (
    Encode,
    Messages,
    Tokenizer,
    TrainedHistory,
    llamafactory_encoder,
)
from tuneyard.core.training.training_run import read_provenance
from tuneyard.core.weights.adapter_files import CONFIG
from tuneyard.eval.data.dataset import INDEPENDENT, EvalDataset, read_datasets
from tuneyard.eval.data.prompts import choose_prompting, end_after_answer, trained_history, trained_template
from tuneyard.eval.models import Backend
from tuneyard.eval.models.batch_plan import prompts_too_long
from tuneyard.eval.models.load import check_gguf, find_model, load_gguf_tokenizer, open_tokenizer
from tuneyard.eval.models.server import Server
from tuneyard.eval.prove.answers import Reference, prove_files
from tuneyard.eval.prove.histories import PromptWays
from tuneyard.eval.prove.modelfile import ServedModelfile, read_modelfile
from tuneyard.eval.prove.proof import FILES, ParityInputs, Proof, Tolerance, prove_prompts
from tuneyard.eval.prove.servers import connect, prove_servers
from tuneyard.eval.scoring.candidates import Candidate, Opened, open_models
from tuneyard.eval.scoring.request import ScoringRequest

PACKAGES = ("torch", "transformers", "tokenizers", "llamafactory", "gguf")


def prove(request: ScoringRequest, inputs: ParityInputs, tolerance: Tolerance) -> Proof:
    """Compare prompts and answers on the first rows of every dataset. Errors are those of its inputs."""
    datasets = read_datasets(request.datasets, request.data, INDEPENDENT, folder=request.dataset_dir)
    modelfile = None
    if inputs.modelfile:
        modelfile = read_modelfile(inputs.modelfile)
    if inputs.gguf:
        check_gguf(inputs.gguf)
    has_adapter = bool(request.adapters) or (Path(request.model) / CONFIG).is_file()
    opened = open_models(replace(request, no_base=has_adapter))
    first = opened.candidates[0]
    if len(opened.candidates) > max(1, len(request.adapters)):
        raise RequestError(_("{name} is an adapter itself: leave --adapter out", name=request.model))
    merge = read_provenance(inputs.fused) if inputs.fused else None
    digests = {weighted.adapter.digest for weighted in first.adapters}
    if merge and {entry["digest"] for entry in merge["adapters"]} != digests:
        warn(
            _(
                "{path} was fused from other adapters than {name}: fuse it, or name --adapter",
                path=inputs.fused,
                name=first.name,
            )
        )
    servers = [connect(url, inputs, opened, request.model) for url in inputs.urls]
    ways = {}
    unchecked: list[str] = []
    for candidate in opened.candidates:
        template = inputs.template or _common_template(candidate, request.model)
        if template is None:
            subject = _("training's template")
            if len(opened.candidates) > 1:
                subject = _("training's template of {adapter}", adapter=candidate.name)
            unchecked.append(
                _("{subject}: no recipe beside the adapter names one (--template NAME)", subject=subject)
            )
        others = replace(inputs, template=template) if candidate is first else ParityInputs(template)
        served = modelfile if candidate is first else None
        tokenizer = candidate.prompting.tokenizer or opened.backend.tokenizer
        history = None
        if template is not None:
            history = trained_history(_folders(candidate, request.model), template)
        encoders = dict(_prompt_ways(others, candidate, history, tokenizer, served))
        ways[candidate.name] = PromptWays(encoders, tokenizer, template, history)
    facts = _facts(request, inputs, opened, datasets, servers)
    offers = [served.offers for served in servers]
    proof = Proof(ways[first.name].trained_way, facts, tolerance, offers, unchecked=unchecked)
    references = {}
    for candidate in opened.candidates:
        references[candidate.name] = [
            _prove_ways(request, opened.backend, candidate, dataset, ways[candidate.name], proof)
            for dataset in datasets
        ]
    for name in FILES:
        if getattr(inputs, name) is None:
            proof.unchecked.append(_("no --{option}", option=name))
    if inputs.modelfile:
        proof.unchecked.append(_("PARAMETERs of {path}: Ollama alone applies them", path=inputs.modelfile))
    if not servers:
        proof.unchecked.append(_("no --{option}", option="url"))
    proof.comparisons.extend(prove_files(references[first.name], inputs))
    prove_servers(servers, references, opened.candidates, proof)
    proof.unchecked[:] = dict.fromkeys(proof.unchecked)
    if not proof.comparisons:
        raise RequestError(
            _("nothing could be compared: {reasons}", reasons=joined(proof.unchecked, _("; ")))
        )
    return proof


def _prompt_ways(
    inputs: ParityInputs,
    candidate: Candidate,
    history: TrainedHistory | None,
    tokenizer: Tokenizer,
    served: ServedModelfile | None,
) -> Iterator[tuple[str, Encode]]:
    """List every way of making prompts from training to serving, training's first."""
    if inputs.template is not None:  # "": the recipe names none
        way = _("LLaMA-Factory template {name}", name=inputs.template)
        if not inputs.template:
            way = _("LLaMA-Factory's reading of the base's chat template (the recipe names no template)")
        yield way, llamafactory_encoder(tokenizer, inputs.template, history=history)
    yield candidate.prompting.source, candidate.prompting.encode
    if inputs.fused:
        fused_tokenizer, _ends = open_tokenizer(str(find_model(str(inputs.fused))))
        fused = choose_prompting(fused_tokenizer, [inputs.fused], None, day=candidate.prompting.day)
        yield _("chat template and tokenizer of {path}", path=inputs.fused), fused.encode
    if inputs.gguf:
        gguf_tokenizer = load_gguf_tokenizer(inputs.gguf)
        in_gguf = choose_prompting(gguf_tokenizer, (), None, day=candidate.prompting.day)
        yield _("chat template and tokenizer in {path}", path=inputs.gguf), in_gguf.encode
    if served:

        def as_ollama(messages: Messages) -> list[int]:
            """Encode Ollama's prompt; the tokenizer may add its beginning-of-text token."""
            return list(tokenizer(served.render(messages))["input_ids"])

        yield _("TEMPLATE of {path}", path=inputs.modelfile), as_ollama


def _folders(candidate: Candidate, model: str) -> list[Path]:
    """The folders of the trainings: of all adapters, or of the model without adapters."""
    return [weighted.adapter.folder for weighted in candidate.adapters] or [Path(model)]


def _common_template(candidate: Candidate, model: str) -> str | None:
    """The template that the recipes of all adapters name, or that of the model without adapters.

    None without a recipe, or if they differ.
    """
    templates = {trained_template(folder) for folder in _folders(candidate, model)}
    if len(templates) != 1:
        return None
    return templates.pop()


def _prove_ways(
    request: ScoringRequest,
    backend: Backend,
    candidate: Candidate,
    dataset: EvalDataset,
    prompt_ways: PromptWays,
    proof: Proof,
) -> Reference:
    """Compare the ways of making prompts on a dataset with the first one, which is the training's."""
    conversations = [example.messages for example in dataset.conversations[: request.limit]]
    backend = backend.as_trained(candidate.prompting.tokenizer, candidate.prompting.ends)
    tokenizer = backend.tokenizer
    ids_by_way = {}
    for way, encode in prompt_ways.encoders.items():
        ids_by_way[way] = dict(enumerate(map(encode, conversations)))
    trained_way = prompt_ways.trained_way
    trained_ids = ids_by_way[trained_way]
    for way, ids in ids_by_way.items():
        if way == trained_way:
            continue
        comparison = prove_prompts(way, dataset.name, trained_ids, ids, tokenizer.decode)
        proof.comparisons.append(comparison)
        if comparison.flips:
            cause = prompt_ways.cause(way, conversations, comparison.flips, tokenizer.decode)
            if cause:
                proof.causes.append({"model": way, "dataset": dataset.name, **asdict(cause)})
    scored_ids = ids_by_way[candidate.prompting.source]
    too_long = prompts_too_long(scored_ids, request.max_new_tokens, backend.context)
    if too_long:
        rows = counted(len(too_long), "row", "rows")
        proof.unchecked.append(
            _("answers to {rows} of {dataset}: too long for the context", rows=rows, dataset=dataset.name)
        )
    fitting = [row for row in scored_ids if row not in too_long]
    ends = end_after_answer(candidate.prompting.turns, tokenizer)
    return Reference(request, backend, candidate, dataset, trained_ids, scored_ids, fitting, ends)


def _facts(
    request: ScoringRequest,
    inputs: ParityInputs,
    opened: Opened,
    datasets: Sequence[EvalDataset],
    servers: Sequence[Server],
) -> dict[str, object]:
    """Settings, hashes and versions of the check, as prove.json has them."""
    weighted_adapters: list[WeightedAdapter] = []
    for candidate in opened.candidates:
        weighted_adapters += candidate.adapters
    adapters = [
        {"folder": str(weighted.adapter.folder), "weight": weighted.weight} for weighted in weighted_adapters
    ]
    hashes = {"model": opened.backend.digest}
    for weighted in weighted_adapters:
        hashes[f"adapter {weighted.adapter.name}"] = weighted.adapter.digest
    for name, path in (("gguf", inputs.gguf), ("modelfile", inputs.modelfile)):
        if path:
            hashes[name] = sha256(path)
    for dataset in datasets:
        hashes[f"set {dataset.name}"] = dataset.digest
    days = {candidate.prompting.day for candidate in opened.candidates} - {None}
    dated = {"date": str(request.day)} if days else {}
    return {
        "model": request.model,
        "adapters": adapters,
        **dated,
        "dtype": opened.backend.dtype,
        "device": opened.backend.device,
        "servers": [_plain(served) for served in servers],
        "limit": request.limit,
        "max_new_tokens": request.max_new_tokens,
        "hashes": hashes,
        "versions": versions(*PACKAGES),
        "tuneyard": version(),
    }


def _plain(served: Server) -> dict[str, object]:
    """A server's description of itself, as prove.json has it, without its long template and settings."""
    model = served.model
    plain = {"url": served.url}
    for name in (
        "engine",
        "version",
        "model",
        "model_path",
        "context",
        "slots",
        "bos",
        "eos",
        "file_type",
        "bits",
    ):
        plain[name] = getattr(model, name)
    return {**plain, "offers": [offer.offer for offer in served.offers if offer.identity]}
