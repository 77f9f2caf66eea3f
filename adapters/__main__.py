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
    same_options,
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
    from tuneyard.adapters.fuse.fuse import FusePlan
    from tuneyard.adapters.merge.extract import ExtractPlan
    from tuneyard.adapters.merge.merge import MergePlan

# The matrices are small: more BLAS threads help little on an idle machine and waste time on a busy one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

BELONGS = {  # the targets of each option that not all of them take
    "out": ("gguf", "ollama"), "repo": ("hub",), "results": ("hub",), "license": ("hub",),
    "private": ("hub",), "dry_run": ("hub",), "card": ("hub",), "message": ("hub",),
    "type": ("gguf", "ollama"), "from_": ("ollama",), "gguf": ("ollama",), "system": ("ollama",),
    "parameter": ("ollama",), "force": ("gguf", "ollama"), "same_base": ("ollama",),
}  # fmt: skip
TARGETS = {"hub": "hub", "ollama": "ollama", "gguf": "gguf_files"}  # the module of each target
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

    from tuneyard.adapters.model.store import note

    if is_current:
        up_to_date(out, following())
        return
    started = time.monotonic()
    plan = planned()
    for text in plan.notes:
        note(text)
    summary, *details = plan.lines()
    if dry_run:
        nothing = _("nothing written (--dry-run); would write {path}", path=out)
        say(joined([summary, *details, nothing], "\n"))
        next_step(None, command_line("adapter", ("--dry-run",)))
        return
    command = following()
    with tqdm(total=plan.bytes, unit="B", unit_scale=True, delay=2) as bar:
        written = plan.write(bar.update)
    for text in written.notes:
        note(text)
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

    from tuneyard.adapters.model.parents import find_missing_parents
    from tuneyard.adapters.model.store import note, open_any
    from tuneyard.adapters.model.unlearned import unlearned_notes
    from tuneyard.adapters.show.statistics import measure, similarity, text

    if plot:
        from tuneyard.adapters.show.plots import check_folder

        check_folder(plot)  # before anything is measured
    opened = [open_any(reference) for reference in adapters]
    for adapter in opened:
        if plot and adapter.NOT_DRAWN:
            raise RequestError(
                _("{name}: {not_drawn}; leave --plot out", name=adapter.name, not_drawn=adapter.NOT_DRAWN)
            )
    histograms = bool(plot) or as_json
    measured = []
    for adapter in opened:
        progress = tqdm(adapter.modules, adapter.name, delay=2, leave=False)
        measured.append(measure(adapter, progress, histograms=histograms))
    pairs = list(zip(opened, measured, strict=True))
    cosines = []
    for one, first in pairs:
        cosines.append([similarity(one, other, first.norm, second.norm) for other, second in pairs])
    if as_json:
        document = {"adapters": measured, "cosine": cosines}
        print_json(document, _fields)
    else:
        click.echo(hide_secrets("\n".join(text(measured, cosines))))
    if plot:
        from tuneyard.adapters.show.plots import draw

        for path in draw(plot, measured, cosines):
            say(_("wrote {path}", path=path), to_stderr=True)
    for unlearned in unlearned_notes(opened):
        note(unlearned)
    needing_base = [adapter for adapter in opened if adapter.NOT_MERGED or adapter.full_tensors]
    missing_parents = find_missing_parents(opened, None)
    if missing_parents:
        note(missing_parents.message)
        next_step(plot, missing_parents.command)
    elif needing_base:
        next_step(plot, needing_base[0].fuse_words(needing_base[0].config.base or "BASE"))
    elif len(adapters) > 1:
        weighted = [f"{reference}={1 / len(adapters):.2g}" for reference in adapters]
        next_step(plot, ["tuneyard", "adapter", "merge", *weighted, "--out", "saves/merge"])
    else:
        modelfile = Path("ollama", opened[0].name, "Modelfile")
        next_step(plot, ["tuneyard", "adapter", "export", adapters[0], "--to", "ollama", "--out", modelfile])


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
    from tuneyard.adapters.export.rename import RenameRequest
    from tuneyard.adapters.export.rename import rename as write_renamed
    from tuneyard.adapters.model.store import note

    written = write_renamed(RenameRequest(adapter, out, base))
    command = ["tuneyard", "adapter", "show", out]
    if written.is_current:
        up_to_date(out, command)
        return
    for text in written.notes:
        note(text)
    say(joined(written.lines, "\n"))
    next_step(out, command)


@command(
    "tuneyard adapter export demo-rte --to ollama --out build/ollama/Modelfile",
    "tuneyard adapter export demo-rte --to hub --repo me/rte-lora --license apache-2.0 --dry-run",
)
@click.argument("reference", metavar="NAME_OR_DIR")
@click.option("--to", "target", type=click.Choice(list(TARGETS), case_sensitive=False), required=True)
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
@click.option("--dry-run", is_flag=True, help="hub: list the files, print the card, send nothing.")
def export(reference: str, target: str, base: Path | None, **options: Any) -> None:  # Click's values
    """Upload to the Hugging Face Hub with a card, or write a GGUF file or an Ollama Modelfile."""
    import importlib

    from tuneyard.adapters.export.source import PUBLISHED, open_source
    from tuneyard.adapters.model.adapter import name_of
    from tuneyard.adapters.model.store import open_adapter, open_any
    from tuneyard.adapters.write.carried_tokenizer import PROMPT_FILES
    from tuneyard.core.files.links import check_own_files

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
    if target != "hub" and options["out"] is None:
        example = {"gguf": "lora.gguf", "ollama": "Modelfile"}[target]
        raise RequestError(_("no --out: the file to write, as in --out {example}", example=example))
    if target == "hub" and options["repo"] is None:
        raise RequestError(_("no --repo: the repository on the hub, as in --repo OWNER/NAME"))
    module = importlib.import_module(f"tuneyard.adapters.export.{TARGETS[target]}")
    is_fused = target == "ollama" and not options["from_"]
    source = open_source(reference, base, open_any if is_fused else open_adapter)
    check_own_files(source.folder, PUBLISHED)
    if target != "hub" and source.base is not None:
        check_own_files(source.base, PROMPT_FILES)
    getattr(module, f"to_{target}")(source, options)
    out = options["out"]
    if target == "gguf":
        command: list[object] = ["tuneyard", "adapter", "export", reference, *same_options("--base")]
        if source.adapter:
            command += ["--from", "BASE"]  # its name in Ollama
        command += ["--to", "ollama", "--gguf", out, "--out", out.with_name("Modelfile")]
        next_step(out, command)
    elif target == "ollama":
        next_step(out, ["ollama", "create", name_of(Path(reference)), "-f", out])
    elif options["dry_run"]:
        next_step(None, command_line("adapter", ("--dry-run",)))
    else:
        next_step(f"https://huggingface.co/{options['repo']}", ["hf", "download", options["repo"]])


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
    from tuneyard.adapters.model.store import note
    from tuneyard.adapters.serve.plan import (
        after_engine_setup,
        missing_engine,
        plan_serving,
        require_startable,
        start,
    )

    plan = plan_serving(references, **options)
    for text in plan.models.notes:
        note(text)
    say(joined(plan.lines(), "\n"))
    if dry_run:
        absence = missing_engine(plan)
        if absence:
            note(absence)
        next_step(None, after_engine_setup(plan, command_line("adapter", ("--dry-run",))))
        return
    require_startable(plan)  # before gigabytes are written
    plan.write()

    def started() -> None:
        next_step(plan.url, [*plan.prove_command(), *same_options("--same-base")])

    start(plan, started)


if __name__ == "__main__":
    run_command(cli)
