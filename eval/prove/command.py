"""tuneyard eval prove --model BASE --adapter NAME --fused DIR --gguf FILE --url URL --dataset NAME …

Check that training, scoring and serving agree. Every way of making prompts must give the same token ids.
The unmerged adapter, the fused model and the GGUF must give the same answers. See docs/eval-prove.md.

The first way of making prompts is the reference for the others: LLaMA-Factory's template if it is known,
otherwise the chat template of the scoring. The unmerged adapter's answers are the reference for files and
servers. Every model reads the same ids. A server also gets the messages alone, as its clients send them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from tuneyard.adapters.weighted import WeightedAdapter
from tuneyard.core import version
from tuneyard.core.cli.main import cli_command, command_line
from tuneyard.core.cli.next_step import next_step, same_options
from tuneyard.core.errors import ContentError, RequestError, counted
from tuneyard.core.files import sha256, versions, write_json, write_text
from tuneyard.core.prompt import Encode
from tuneyard.core.weights.adapter_files import CONFIG
from tuneyard.eval.backends.connection import TIMEOUT
from tuneyard.eval.backends.load import check_gguf
from tuneyard.eval.backends.modelfile import read_modelfile
from tuneyard.eval.backends.scorers import prompts_too_long
from tuneyard.eval.backends.served import ServerFacts
from tuneyard.eval.backends.server import Server, check_url
from tuneyard.eval.datasets.dataset import INDEPENDENT, EvalDataset, read_datasets
from tuneyard.eval.datasets.prompts import trained_template
from tuneyard.eval.prove.answers import Reference, prove_files, training_ends
from tuneyard.eval.prove.page import markdown, to_json
from tuneyard.eval.prove.proof import ParityInputs, Proof, Tolerance, prove_prompts
from tuneyard.eval.prove.servers import connect, prove_servers
from tuneyard.eval.prove.ways import prompt_ways
from tuneyard.eval.scoring.candidates import Candidate, Opened, open_models
from tuneyard.eval.scoring.options import PATH, Finite, ScoringRequest, data_options, dtype, number, same_base
from tuneyard.eval.scoring.task import Job

FILES = ("fused", "gguf", "modelfile")
PACKAGES = ("torch", "transformers", "tokenizers", "llamafactory", "gguf")


@cli_command(
    "prove",
    "tuneyard adapter fuse demo-rte --base models/demo-base --dtype fp32 --out saves/fused",
    "tuneyard eval prove --model models/demo-base --adapter demo-rte --fused saves/fused "
    "--dataset demo_rte_eval --limit 4 --out results/parity",
)
@click.option("--model", required=True, metavar="DIR|ID", help="The base (or a LoRA folder that names it).")
@click.option(
    "--adapter",
    "adapters",
    multiple=True,
    metavar="NAME[=DIR]",
    help="An adapter; NAME alone means saves/NAME. Repeatable: files are compared with the first.",
)
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
@click.option(
    "--url",
    "urls",
    multiple=True,
    metavar="URL",
    help="A running server, e.g. http://localhost:8000/v1. Repeatable.",
)
@click.option(
    "--served-model",
    "served_models",
    multiple=True,
    metavar="NAME",
    help="The model's name there; with several --url one for each.  [the adapter's, or its only one]",
)
@click.option(
    "--timeout",
    type=Finite(0, min_open=True),
    default=TIMEOUT,
    show_default=True,
    metavar="SECONDS",
    help="The longest wait for an answer of a server.",
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
def cli(
    out: Path,
    flips: int,
    tolerance: float,
    template: str | None,
    urls: tuple[str, ...],
    served_models: tuple[str, ...],
    timeout: float,
    **options: Any,
) -> None:
    """Compare prompts and answers from training to serving; exit 1 where they differ.

    Prompts must have the same token ids. Answers may differ by --flips and --tolerance.
    """
    if out.exists() and not out.is_dir():
        raise RequestError(f"--out {out}: a file; expected a folder")
    files = {name: options.pop(name) for name in FILES}
    if not (template or urls or any(files.values())):
        choices = ", ".join(f"--{name}" for name in ("template", *FILES, "url"))
        raise RequestError(f"nothing to compare with: name {choices}")
    addresses = tuple(check_url(url) for url in urls)
    inputs = ParityInputs(template, **files, servers=_named_servers(addresses, served_models))
    request = ScoringRequest(out=out, timeout=timeout, **options)
    allowed = Tolerance(flips, tolerance)
    proof = prove(request, inputs, allowed)
    page = markdown(proof, allowed)
    write_text(out / "prove.md", page)
    write_json(out / "prove.json", to_json(proof, allowed, command_line("eval.prove")))
    click.echo(page, nl=False)
    if proof.failures(allowed):
        raise ContentError(f"not equal, see {out / 'prove.md'}")
    if inputs.modelfile:
        command = ["ollama", "create", out.name, "-f", inputs.modelfile]
    elif len(urls) == 1:
        (facts,) = proof.servers
        command = ["tuneyard", "eval", "chat", *_chat_server(facts, request.adapters)]
    else:
        command = ["tuneyard", "eval", "chat", *same_options("--model", "--adapter", "--dataset-dir")]
    next_step(out / "prove.md", command)


def _chat_server(facts: ServerFacts, adapters: Sequence[str]) -> list[str]:
    """Options of a chat with the server's adapter: the first one of --adapter."""
    words = same_options("--url", "--served-model")
    if "--served-model" in words or not adapters:
        return words
    name = Path(adapters[0].partition("=")[0]).name
    for offer in facts.adapters:
        if name in offer.names:
            return [*words, "--served-model", offer.name]
    return words


def _named_servers(urls: Sequence[str], names: Sequence[str]) -> tuple[tuple[str, str | None], ...]:
    """Each address once, with the name of its model, None if no --served-model names it."""
    if not names:
        return tuple((url, None) for url in dict.fromkeys(urls))
    if len(names) not in (1, len(urls)) or not urls:
        raise RequestError(
            f"--served-model: {len(names)} names for {counted(len(urls), '--url')}: expected one for all, or "
            "one for each --url in its order"
        )
    if len(names) == 1:
        names = [names[0]] * len(urls)
    return tuple(dict.fromkeys(zip(urls, names, strict=True)))


def prove(request: ScoringRequest, inputs: ParityInputs, tolerance: Tolerance) -> Proof:
    """Compare prompts and answers on the first rows of every dataset. Errors are those of its inputs."""
    datasets = read_datasets(request.datasets, request.data, INDEPENDENT, folder=request.dataset_dir)
    modelfile = None
    if inputs.modelfile:
        modelfile = read_modelfile(inputs.modelfile)
    if inputs.gguf:
        check_gguf(inputs.gguf)
    has_adapter = bool(request.adapters) or (Path(request.model) / CONFIG).is_file()
    opened = open_models(replace(request, timeout=None, no_base=has_adapter))
    first = opened.candidates[0]
    if len(opened.candidates) > max(1, len(request.adapters)):
        raise RequestError(f"{request.model} is an adapter itself: leave --adapter out")
    timeout = request.timeout or TIMEOUT
    servers = [connect(url, name, timeout, opened, request.model) for url, name in inputs.servers]
    ways = {}
    unchecked = []
    for candidate in opened.candidates:
        template = inputs.template or _common_template(candidate, request.model)
        if template is None:
            of_adapter = f" of {candidate.name}" if len(opened.candidates) > 1 else ""
            unchecked.append(
                f"training's template{of_adapter}: no recipe beside the adapter names one (--template NAME)"
            )
        others = replace(inputs, template=template) if candidate is first else ParityInputs(template)
        served = modelfile if candidate is first else None
        ways[candidate.name] = dict(prompt_ways(others, candidate, opened.backend.tokenizer, served))
    facts = _facts(request, inputs, opened, datasets, servers)
    proof = Proof(next(iter(ways[first.name])), facts, [served.facts for served in servers])
    proof.unchecked.extend(unchecked)
    references: dict[str, list[Reference]] = {}
    for candidate in opened.candidates:
        jobs = [Job(request, opened, candidate, dataset) for dataset in datasets]
        references[candidate.name] = [_prove_ways(job, ways[candidate.name], proof) for job in jobs]
    proof.unchecked.extend(f"no --{name}" for name in FILES if getattr(inputs, name) is None)
    if inputs.modelfile:
        proof.unchecked.append(f"PARAMETERs of {inputs.modelfile}: Ollama alone applies them")
    if not inputs.servers:
        proof.unchecked.append("no --url")
    proof.answers.extend(prove_files(references[first.name], inputs))
    prove_servers(servers, references, opened.candidates, tolerance, proof)
    proof.unchecked[:] = dict.fromkeys(proof.unchecked)
    if not (proof.prompts or proof.answers or proof.chats):
        raise RequestError(f"nothing could be compared: {'; '.join(proof.unchecked)}")
    return proof


def _common_template(candidate: Candidate, model: str) -> str | None:
    """The template that the recipes of all parts name, or that of the model without adapters.

    None without a recipe, or if they differ.
    """
    templates = {trained_template(part.adapter.folder) for part in candidate.parts}
    if not candidate.parts:
        templates = {trained_template(Path(model))}
    if len(templates) != 1:
        return None
    return templates.pop()


def _prove_ways(job: Job, encoders: Mapping[str, Encode], proof: Proof) -> Reference:
    """Compare the ways of making prompts on a dataset with the first one, which is the training's."""
    conversations = [example.messages for example in job.rows]
    tokenizer = job.backend.tokenizer
    ids_by_way = {way: dict(enumerate(map(encode, conversations))) for way, encode in encoders.items()}
    trained_way = next(iter(ids_by_way))
    trained_ids = ids_by_way[trained_way]
    for way, ids in ids_by_way.items():
        if way != trained_way:
            proof.prompts.append(prove_prompts(way, job.dataset.name, trained_ids, ids, tokenizer.decode))
    scored_ids = ids_by_way[job.candidate.prompting.source]
    too_long = prompts_too_long(scored_ids, job.request.max_new_tokens, job.backend.context)
    if too_long:
        rows = counted(len(too_long), "row")
        proof.unchecked.append(f"answers to {rows} of {job.dataset.name}: too long for the context")
    fitting = [row for row in scored_ids if row not in too_long]
    return Reference(job, trained_ids, scored_ids, fitting, training_ends(job.candidate, tokenizer))


def _facts(
    request: ScoringRequest,
    inputs: ParityInputs,
    opened: Opened,
    datasets: Sequence[EvalDataset],
    servers: Sequence[Server],
) -> dict[str, object]:
    """Settings, hashes and versions of the check, as prove.json has them."""
    parts: list[WeightedAdapter] = []
    for candidate in opened.candidates:
        parts += candidate.parts
    adapters = [{"folder": str(part.adapter.folder), "weight": part.weight} for part in parts]
    hashes = {"model": opened.backend.digest}
    for part in parts:
        hashes[f"adapter {part.adapter.name}"] = part.adapter.digest
    for name, path in (("gguf", inputs.gguf), ("modelfile", inputs.modelfile)):
        if path:
            hashes[name] = sha256(path)
    for dataset in datasets:
        hashes[f"set {dataset.name}"] = dataset.digest
    return {
        "model": request.model,
        "adapters": adapters,
        "dtype": opened.backend.dtype,
        "device": opened.backend.device,
        "servers": [_plain(served.facts) for served in servers],
        "limit": request.limit,
        "max_new_tokens": request.max_new_tokens,
        "hashes": hashes,
        "versions": versions(*PACKAGES),
        "tuneyard": version(),
    }


def _plain(facts: ServerFacts) -> dict[str, object]:
    """What a server reports of itself, as prove.json has it."""
    plain = asdict(facts)
    del plain["sampling"], plain["chat_template"]  # long, and the causes name what matters of them
    return plain
