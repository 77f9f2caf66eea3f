"""Merge, fuse, inspect, extract, export and serve LoRA adapters.

An adapter is a path with a slash, or a NAME: saves/NAME, otherwise the folder NAME here.
"""

import functools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneyard.adapters.methods import methods, parameters_by_name
from tuneyard.core.cli.main import (
    LazyGroup,
    TuneyardCommand,
    command_line,
    next_step,
    up_to_date,
)
from tuneyard.core.cli.run import run_command
from tuneyard.core.errors import RequestError, resumed_by
from tuneyard.core.execution.state import CURRENT
from tuneyard.core.language.message import _, joined
from tuneyard.core.language.messages import print_json, say
from tuneyard.core.text.secrets import hide_secrets
from tuneyard.core.weights.dtypes import DTYPES

if TYPE_CHECKING:
    from tuneyard.adapters.export.gguf_files import GgufExport
    from tuneyard.adapters.export.ollama import OllamaPlan
    from tuneyard.adapters.export.rename import RenamePlan
    from tuneyard.adapters.fuse.fuse import FusePlan
    from tuneyard.adapters.merge.extract import ExtractPlan
    from tuneyard.adapters.merge.merge import MergePlan

# The matrices are small: more BLAS threads help little on an idle machine and waste time on a busy one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

BELONGS = {  # the targets of each option that not all of them take
    "out": ("gguf", "ollama"), "repo": ("hub",), "results": ("hub",), "license": ("hub",),
    "private": ("hub",), "dry_run": ("hub",), "card": ("hub",), "message": ("hub",),
    "with_fingerprints": ("hub",),
    "type": ("gguf", "ollama"), "from_": ("ollama",), "gguf": ("ollama",), "system": ("ollama",),
    "parameter": ("ollama",), "force": ("gguf", "ollama"), "same_base": ("ollama",),
}  # fmt: skip
TARGETS = ("hub", "ollama", "gguf")
FOLDER = click.Path(path_type=Path)
ENGINES = ("vllm", "llama.cpp")
Decorator = Callable[[Callable[..., Any]], click.Command]
DRY_RUN = click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
SAME_BASE = click.option(
    "--same-base", is_flag=True, help="State that an adapter's base and --base are the same model."
)


cli = LazyGroup(
    "adapter",
    examples=(
        "tuneyard adapter show demo-rte",
        "tuneyard adapter merge demo-rte=0.5 demo-mnli=0.5 --out saves/both-halves",
    ),
    help=__doc__,
)


def command(*lines: str, kind: type[TuneyardCommand] = TuneyardCommand) -> Decorator:
    """Declare a command. Its `--help` ends with these example lines."""
    return cli.command(cls=kind, examples=lines)


class MergeCommand(TuneyardCommand):
    """`merge` with `--method`, and an option for every parameter of every merge method, also of plug-ins."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """List the options of the methods after `--out`."""
        params: list[click.Parameter] = []
        for param in super().get_params(ctx):
            params.append(param)
            if param.name == "out":
                params += _method_options()
        return params


@functools.cache
def _method_options() -> list[click.Option]:
    """Options with text values, which the declaration of the chosen method checks later."""
    bundled = ", ".join(name for name, method in methods().items() if method.plugin is None)
    options = [click.Option(["--method"], help=f"{bundled}, or the name of a plug-in.  [default: exact]")]
    for name, declarations in parameters_by_name().items():
        names_by_sentence: dict[str, list[str]] = {}
        for method, parameter in declarations:
            sentence = parameter.help
            if parameter.default is not None:
                sentence += f"  [default: {parameter.default:g}]"
            names_by_sentence.setdefault(sentence, []).append(method.name)
        sentences = [f"{_short(names)}: {sentence}" for sentence, names in names_by_sentence.items()]
        parameter = declarations[0][1]
        metavar = "INTEGER" if parameter.kind is int else "FLOAT"
        options.append(click.Option([parameter.option, name], metavar=metavar, help=" ".join(sentences)))
    return options


def _short(names: Sequence[str]) -> str:
    """Names of methods: `ties[_svd]` for `ties, ties_svd`, and `…_svd` for several that all end so."""
    words = []
    for name in names:
        if f"{name}_svd" in names:
            words.append(f"{name}[_svd]")
        elif not name.endswith("_svd") or name.removesuffix("_svd") not in names:
            words.append(name)
    if len(words) > 1 and all(word.endswith("_svd") for word in words):
        return "…_svd"
    return ", ".join(words)


@command(
    "tuneyard adapter merge demo-rte=0.5 demo-mnli=0.5 --out saves/both-halves",
    "tuneyard adapter merge demo-rte=1 demo-mnli=-0.5 --out saves/less --dry-run",
    kind=MergeCommand,
)
@click.argument("adapters", nargs=-1, required=True, metavar="NAME_OR_DIR=WEIGHT…|RECIPE.yaml")
@click.option("--out", type=FOLDER, help="Folder of the merged adapter.")
@click.option("--dtype", type=click.Choice(list(DTYPES)), help="[default: fp32]")
@click.option(
    "--base",
    type=FOLDER,
    help="Base model folder: for modules_to_save, bias, and adapters that name their base differently.",
)
@SAME_BASE
@DRY_RUN
@click.option("--force", is_flag=True, help="Replace --out if merge wrote it.")
def merge(adapters: tuple[str, ...], dry_run: bool, **options: Any) -> None:  # Click's values
    """Write the weighted sum of adapters as one plain adapter."""
    from tuneyard.adapters.merge.after_merge import after_merge
    from tuneyard.adapters.merge.merge import plan_merging, state
    from tuneyard.adapters.merge.request import merge_request

    request = merge_request(adapters, options)
    is_current = not request.force and state(request) == CURRENT
    plan = functools.partial(plan_merging, request)
    _make(request.out, is_current, plan, dry_run, functools.partial(after_merge, request))


@command(
    "tuneyard adapter fuse demo-rte --out models/rte",
    "tuneyard adapter fuse demo-rte=0.5 demo-mnli=1 --base models/demo-base --out models/both",
)
@click.argument("adapters", nargs=-1, required=True, metavar="NAME_OR_DIR[=WEIGHT]…")
@click.option("--base", type=FOLDER, help="Base model folder.  [default: the base that the adapters name]")
@click.option("--out", type=FOLDER, required=True, help="Folder of the full model.")
@click.option(
    "--dtype",
    type=click.Choice(["fp32", "bf16"]),  # the range of fp16 is too small for some models
    help="Dtype of all tensors.  [default: the base's]",
)
@click.option(
    "--base-as", type=click.Choice(["nf4", "nf4-double"]), help="Fuse into the weights of a QLoRA training."
)
@SAME_BASE
@click.option(
    "--max-shard-size", "max_shard", help="Largest weight file, e.g. 5GB.  [default: the base's files]"
)
@DRY_RUN
@click.option("--force", is_flag=True, help="Replace --out if fuse wrote it.")
@resumed_by(lambda: _("the same command resumes it"))
def fuse(adapters: tuple[str, ...], dry_run: bool, **options: Any) -> None:  # Click's values
    """Write the base plus adapters as a full model, shard by shard."""
    from tuneyard.adapters.fuse.fuse import fuse_request, plan_fusing, state

    request = fuse_request(adapters, options)
    is_current = not request.force and state(request) == CURRENT
    plan = functools.partial(plan_fusing, request)
    command = ["tuneyard", "eval", "chat", "--model", request.out]
    _make(request.out, is_current, plan, dry_run, lambda: command)


@command(
    "tuneyard adapter extract models/demo-fused --base models/demo-base --rank 16 --out build/extracted",
    "tuneyard adapter extract models/demo-fused --base models/demo-base --rank 64 --dtype bf16 "
    "--out build/extracted64 --dry-run",
)
@click.argument("model", type=FOLDER)
@click.option("--base", type=FOLDER, required=True, help="Folder of the model that was fine-tuned.")
@click.option("--rank", type=click.IntRange(min=1), required=True, help="Rank of the LoRA.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the adapter.")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="fp32", show_default=True)
@DRY_RUN
def extract(model: Path, base: Path, rank: int, out: Path, dtype: str, dry_run: bool) -> None:
    """Make a LoRA of a full fine-tune, and say what the rank loses."""
    from tuneyard.adapters.merge.extract import ExtractRequest, plan_extraction, state

    request = ExtractRequest(model, base, rank, out, DTYPES[dtype].stored)
    plan = functools.partial(plan_extraction, request)
    command = ["tuneyard", "adapter", "show", out]
    _make(out, state(request) == CURRENT, plan, dry_run, lambda: command)


def _make(
    out: Path,
    is_current: bool,
    planned: "Callable[[], MergePlan | FusePlan | ExtractPlan]",
    dry_run: bool,
    following: Callable[[], Sequence[object]],
) -> None:
    """Plan a result and write it, or print the plan and write nothing (`--dry-run`).

    A result that is current needs neither. `following` are the words of the next command.
    """
    from tqdm import tqdm

    if is_current:
        up_to_date(out, following())
        return
    started = time.monotonic()
    plan = planned()
    _notes(plan.notes)
    summary, *details = plan.lines()
    if dry_run:
        nothing = _("nothing written (--dry-run); would write {path}", path=out)
        say(joined([summary, *details, nothing], "\n"))
        next_step(None, command_line("adapter", ("--dry-run",)))
        return
    command = following()
    with tqdm(total=plan.bytes, unit="B", unit_scale=True, delay=2) as bar:
        written = plan.write(bar.update)
    _notes(written.notes)
    say(joined([summary, *written.lines, f"{out}  {time.monotonic() - started:.1f} s"], "\n"))
    next_step(out, command)


@command(
    "tuneyard adapter show demo-rte",
    "tuneyard adapter show demo-rte demo-mnli --plot build/plots",
)
@click.argument("adapters", nargs=-1, required=True, metavar="NAME_OR_DIR…")
@click.option("--plot", type=FOLDER, help="Folder for the pictures (PNG).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with spectra and histograms.")
def show(adapters: tuple[str, ...], plot: Path | None, as_json: bool) -> None:
    """Inspect adapters: modules, shapes, norms, spectra, cosine similarity."""
    from tqdm import tqdm

    from tuneyard.adapters.show.show import InspectRequest
    from tuneyard.adapters.show.show import show as measure_all
    from tuneyard.adapters.show.statistics import text

    result = measure_all(
        InspectRequest(adapters, plot, as_json),
        lambda adapter: tqdm(adapter.modules, adapter.name, delay=2, leave=False),
    )
    if as_json:
        print_json({"adapters": result.adapters, "cosine": result.cosines}, _fields)
    else:
        click.echo(hide_secrets("\n".join(text(result.adapters, result.cosines))))
    for path in result.pictures:
        say(_("wrote {path}", path=path), to_stderr=True)
    _notes(result.notes)
    next_step(plot, result.command)


def _fields(statistics: Any) -> dict[str, object]:
    """The fields of a dataclass for JSON. `asdict` fails at a deeply nested config, which it copies."""
    return {field.name: getattr(statistics, field.name) for field in fields(statistics)}


@command(
    "tuneyard adapter rename saves/rte --out saves/rte-renamed",
    "tuneyard adapter rename saves/rte --base models/qwen2.5-vl --out saves/rte-renamed",
)
@click.argument("adapter", metavar="NAME_OR_DIR")
@click.option("--base", type=FOLDER, help="Base model folder: give the copy its names of modules.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the renamed copy.")
def rename(adapter: str, base: Path | None, out: Path) -> None:
    """Write a copy of an adapter with the names that PEFT, or a base, reads."""
    from tuneyard.adapters.export.rename import RenameRequest, plan_renaming, state

    request = RenameRequest(adapter, out, base)
    command = ["tuneyard", "adapter", "show", out]
    _write(out, state(request) == CURRENT, functools.partial(plan_renaming, request), lambda: command)


@command(
    "tuneyard adapter export demo-rte --to ollama --out build/ollama/Modelfile",
    "tuneyard adapter export demo-rte --to hub --repo me/rte-lora --license apache-2.0 --dry-run",
)
@click.argument("reference", metavar="NAME_OR_DIR")
@click.option("--to", "target", type=click.Choice(TARGETS, case_sensitive=False), required=True)
@click.option("--base", type=FOLDER, help="Base model folder.  [default: the base that the adapter names]")
@click.option("--out", type=FOLDER, help="gguf, ollama: file to write.")
@click.option("--force", is_flag=True, help="gguf, ollama: replace a file of the same format.")
@click.option("--type", help="gguf, ollama: f16, q8_0, q4_0.  [default: f16]")
@click.option(
    "--from", "from_", help="ollama: the adapter's base in Ollama, e.g. qwen2.5:0.5b: write a LoRA for it."
)
@click.option("--gguf", type=FOLDER, help="ollama: file that --to gguf wrote.  [default: a new one]")
@click.option("--same-base", is_flag=True, help="ollama: the adapter's base and --base are the same model.")
@click.option("--system", help="ollama: system text.  [default: from the chat template]")
@click.option(
    "--parameter",
    multiple=True,
    help="ollama: NAME=VALUE, e.g. temperature=0; repeatable. Each stop=TEXT adds a stop word.",
)
@click.option("--repo", help="hub: OWNER/NAME.")
@click.option("--private", is_flag=True, help="hub: make a new repository private.")
@click.option("--license", help="hub: licence of the base, e.g. apache-2.0.")
@click.option(
    "--results", type=FOLDER, multiple=True, help="hub: folder with results.json files; repeatable."
)
@click.option(
    "--card",
    type=FOLDER,
    help="hub: file to upload as README.md.  [default: NAME_OR_DIR's own, or a made one]",
)
@click.option("--message", help="hub: message of the commit.")
@click.option("--with-fingerprints", is_flag=True, help="hub: upload hashes of the training rows, too.")
@click.option("--dry-run", is_flag=True, help="hub: list the files, print the card, send nothing.")
def export(reference: str, target: str, base: Path | None, **options: Any) -> None:  # Click's values
    """Upload to the Hugging Face Hub with a card, or write a GGUF file or an Ollama Modelfile."""
    for name, value in options.items():
        if value and target not in BELONGS[name]:
            option = name.strip("_").replace("_", "-")
            raise RequestError(
                _(
                    "--{option} belongs to --to {target}, not to {other}",
                    option=option,
                    target=joined(BELONGS[name], _(" or ")),
                    other=target,
                )
            )
    chosen = {name: value for name, value in options.items() if target in BELONGS[name]}
    if target == "hub":
        _export_to_hub(reference, base, chosen)
        return
    if options["out"] is None:
        example = {"gguf": "lora.gguf", "ollama": "Modelfile"}[target]
        raise RequestError(_("no --out: the file to write, as in --out {example}", example=example))
    if target == "gguf":
        _export_gguf(reference, base, chosen)
    else:
        _export_ollama(reference, base, chosen)


def _export_to_hub(reference: str, base: Path | None, options: dict[str, Any]) -> None:
    """`--to hub`."""
    from tuneyard.adapters.export.hub import HubRequest, plan_upload, send

    if options["repo"] is None:
        raise RequestError(_("no --repo: the repository on the hub, as in --repo OWNER/NAME"))
    dry_run = options.pop("dry_run")
    upload = plan_upload(HubRequest(reference, base=base, **options))
    _notes(upload.notes)
    click.echo("\n".join(upload.lines()))
    if dry_run:
        click.echo(f"\n{upload.card}")
        say(_("nothing sent (--dry-run); would send to {repo}", repo=options["repo"]))
        next_step(None, command_line("adapter", ("--dry-run",)))
        return
    sent = send(upload)
    _notes(sent.notes)
    click.echo("\n".join(sent.lines))
    next_step(f"https://huggingface.co/{options['repo']}", ["hf", "download", options["repo"]])


def _export_gguf(reference: str, base: Path | None, options: dict[str, Any]) -> None:
    """`--to gguf`. The next command writes the Modelfile, for an adapter with its base's name in Ollama."""
    from tuneyard.adapters.export.gguf_files import GgufRequest, plan_gguf_export, state
    from tuneyard.adapters.export.source import is_adapter

    request = GgufRequest(reference, base=base, **options)
    out = request.out

    def following() -> list[object]:
        command: list[object] = ["tuneyard", "adapter", "export", reference]
        if base is not None:
            command += ["--base", base]
        if is_adapter(reference):
            command += ["--from", "BASE"]  # its name in Ollama
        return [*command, "--to", "ollama", "--gguf", out, "--out", out.with_name("Modelfile")]

    is_current = not request.force and state(request) == CURRENT
    _write(out, is_current, functools.partial(plan_gguf_export, request), following)


def _export_ollama(reference: str, base: Path | None, options: dict[str, Any]) -> None:
    """`--to ollama`."""
    from tuneyard.adapters.export.ollama import OllamaRequest, plan_ollama, state
    from tuneyard.adapters.model.adapter import name_of

    base_in_ollama, parameters = options.pop("from_"), options.pop("parameter")
    request = OllamaRequest(
        reference, base=base, base_in_ollama=base_in_ollama, parameters=parameters, **options
    )
    is_current = not request.force and state(request) == CURRENT
    command = ["ollama", "create", name_of(Path(reference)), "-f", request.out]
    _write(request.out, is_current, functools.partial(plan_ollama, request), lambda: command)


def _write(
    out: Path,
    is_current: bool,
    planned: "Callable[[], GgufExport | OllamaPlan | RenamePlan]",
    following: Callable[[], Sequence[object]],
) -> None:
    """Plan a result and write it, unless it is current. `following` are the words of the next command."""
    from tqdm import tqdm

    if is_current:
        up_to_date(out, following())
        return
    plan = planned()
    _notes(plan.notes)
    with tqdm(total=plan.bytes, unit="B", unit_scale=True, delay=2) as bar:
        written = plan.write(bar.update)
    _notes(written.notes)
    if written.lines:
        say(joined(written.lines, "\n"))
    next_step(out, following())


def _notes(notes: Sequence[str]) -> None:
    """Print notes on stderr."""
    from tuneyard.adapters.model.store import note

    for text in notes:
        note(text)


@command(
    "tuneyard adapter serve demo-rte demo-mnli --engine llama.cpp --dry-run",
    "tuneyard adapter serve demo-rte --engine vllm --dry-run",
)
@click.argument("references", nargs=-1, required=True, metavar="NAME_OR_DIR…")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    help="[default: vllm if it is on PATH, otherwise llama.cpp]",
)
@click.option("--base", type=FOLDER, help="Base model folder.  [default: the base that the adapters name]")
@SAME_BASE
@click.option(
    "--out",
    type=FOLDER,
    default="saves/serving",
    show_default=True,
    help="Folder for the files that the server loads. They are written once.",
)
@click.option("--think", is_flag=True, help="Let a model think before it answers.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(1, 65535), help="[default: 8000 for vllm, 8080 for llama.cpp]")
@DRY_RUN
def serve(references: tuple[str, ...], dry_run: bool, **options: Any) -> None:  # Click's values
    """Serve adapters as they were trained, by vLLM or llama.cpp, and print the command.

    Chat template, end tokens and length are those of the training; answers are greedy unless a request
    sets a temperature. A folder of a full model is served, too.
    """
    from tuneyard.adapters.serve.plan import (
        ServeRequest,
        after_engine_setup,
        missing_engine,
        plan_serving,
        require_startable,
        start,
    )

    request = ServeRequest(references, **options)
    plan = plan_serving(request)
    _notes(plan.models.notes)
    say(joined(plan.lines(), "\n"))
    if dry_run:
        absence = missing_engine(plan)
        if absence:
            _notes([absence])
        next_step(None, after_engine_setup(plan, command_line("adapter", ("--dry-run",))))
        return
    require_startable(plan)  # before gigabytes are written
    plan.write()

    def started() -> None:
        same_base = ["--same-base"] if request.same_base else []
        next_step(plan.url, [*plan.prove_command(), *same_base])

    start(plan, started)


if __name__ == "__main__":
    run_command(cli)
