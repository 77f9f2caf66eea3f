"""`tuneyard adapter merge|fuse|show|export`: exact arithmetic on adapters; no torch, no base in memory."""

import functools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneyard.adapters.methods import names, parameters_by_name
from tuneyard.core.cli import examples
from tuneyard.core.errors import CLI, RequestError, resumed_by, run
from tuneyard.core.language import lang_option, tr

if TYPE_CHECKING:
    from tuneyard.adapters.fuse import FusePlan
    from tuneyard.adapters.merge import MergePlan

# The matrices are small: more BLAS threads gain little on an idle machine and spin on a busy one.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

BELONGS = {  # options that only some targets take
    "out": ("gguf", "ollama"), "repo": ("hub",), "results": ("hub",), "license": ("hub",),
    "private": ("hub",), "dry_run": ("hub",), "type": ("gguf",), "llama_cpp": ("gguf",),
    "from_": ("ollama",), "gguf": ("ollama",), "system": ("ollama",), "parameter": ("ollama",),
    "force": ("gguf", "ollama"),
}  # fmt: skip
TARGETS = {"hub": "hub", "ollama": "modelfile", "gguf": "gguf_files"}  # and the module of each
FOLDER = click.Path(path_type=Path)
Decorator = Callable[[Callable[..., Any]], click.Command]
DRY_RUN = click.option("--dry-run", is_flag=True, help="Print what would be written, and write nothing.")
SAME_BASE = click.option(
    "--same-base", is_flag=True, help="The base that an adapter names and --base are the same model."
)


EXAMPLES = examples(
    "tuneyard adapter show demo-rte",
    "tuneyard adapter merge demo-rte=0.5 demo-mnli=0.5 --out saves/both-halves",
)


@click.group(context_settings=CLI, epilog=EXAMPLES)
def cli() -> None:
    """Merge, fuse, inspect and export LoRA adapters.

    An adapter is a path with a slash, or a NAME: saves/NAME, else the folder NAME here.
    """


def command(*lines: str, kind: type[click.Command] = click.Command) -> Decorator:
    """Decorator of a command whose `--help` ends with these example lines."""
    return cli.command(cls=kind, context_settings=CLI, epilog=examples(*lines))


class MergeCommand(click.Command):
    """`merge` with an option for every parameter that a merge method declares, of plug-ins too."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Put the options of the methods behind `--method`."""
        params: list[click.Parameter] = []
        for param in super().get_params(ctx):
            params.append(param)
            if param.name == "method":
                params += _method_options()
        return params


@functools.cache
def _method_options() -> list[click.Option]:
    """The values stay text: the chosen method's declaration checks them."""
    options = []
    for name, declarations in parameters_by_name().items():
        sentences = []
        for method, parameter in declarations:
            default = "" if parameter.default is None else f"  [default: {parameter.default:g}]"
            sentences.append(f"{method.name}: {parameter.help}{default}")
        parameter = declarations[0][1]
        metavar = "INTEGER" if parameter.kind is int else "FLOAT"
        options.append(click.Option([parameter.option, name], metavar=metavar, help=" ".join(sentences)))
    return options


@command(
    "tuneyard adapter merge demo-rte=0.5 demo-mnli=0.5 --out saves/both-halves",
    "tuneyard adapter merge demo-rte=1 demo-mnli=-0.5 --out saves/less --dry-run",
    kind=MergeCommand,
)
@click.argument("adapters", nargs=-1, required=True, metavar="NAME_OR_DIR=WEIGHT…|RECIPE.yaml")
@click.option("--out", type=FOLDER, help="Folder of the merged adapter.")
@click.option("--method", help=f"{', '.join(names())}, or a plug-in's.  [default: exact]")
@click.option("--dtype", type=click.Choice(["fp32", "fp16", "bf16"]), help="[default: fp32]")
@click.option(
    "--base",
    type=FOLDER,
    help="Base model folder, for modules_to_save, bias, and adapters that name their base differently.",
)
@SAME_BASE
@DRY_RUN
@click.option("--force", is_flag=True, help="Replace an adapter that merge wrote there, and nothing else.")
def merge(adapters: tuple[str, ...], dry_run: bool, **options: Any) -> None:  # Click's values
    """Write the weighted sum of adapters as one plain adapter."""
    from tuneyard.adapters.merge import plan_merging
    from tuneyard.adapters.request import merge_request

    _run(plan_merging(merge_request(adapters, options)), dry_run)


@command(
    "tuneyard adapter fuse demo-rte --base models/demo-base --out models/rte",
    "tuneyard adapter fuse demo-rte=0.5 demo-mnli=1 --base models/demo-base --out models/both",
)
@click.argument("adapters", nargs=-1, required=True, metavar="NAME_OR_DIR[=WEIGHT]…")
@click.option("--base", type=FOLDER, required=True, help="Base model folder.")
@click.option("--out", type=FOLDER, required=True, help="Folder of the full model.")
@click.option(
    "--dtype", type=click.Choice(["fp32"]), help="Write all in fp32; else each tensor keeps its dtype."
)
@click.option("--base-as", type=click.Choice(["nf4", "nf4-double"]), help="Fuse into what a QLoRA run saw.")
@SAME_BASE
@click.option(
    "--max-shard-size", "max_shard", help="Largest weight file, e.g. 5GB; else the base's own files."
)
@DRY_RUN
@click.option("--force", is_flag=True, help="Replace a model that fuse wrote there, and nothing else.")
@resumed_by(lambda: "the same command resumes it")
def fuse(adapters: tuple[str, ...], dry_run: bool, **options: Any) -> None:  # Click's values
    """Write the base with adapters added in as a full model, shard by shard."""
    from tuneyard.adapters.fuse import plan_fusing
    from tuneyard.adapters.request import fuse_request

    _run(plan_fusing(fuse_request(adapters, options)), dry_run)


def _run(plan: "MergePlan | FusePlan", dry_run: bool) -> None:
    """Write a plan, or print all of it and write nothing (`--dry-run`)."""
    from tqdm import tqdm

    from tuneyard.adapters.store import note

    started, out, lines = time.monotonic(), plan.request.out, plan.lines()
    for text in plan.notes:
        note(text)
    if dry_run:
        lines.append(f"nothing written (--dry-run); would write {out}")
    else:
        with tqdm(total=plan.bytes, unit="B", unit_scale=True, delay=2) as bar:
            done = plan.write(bar.update)
        lines = [lines[0], *done, f"{out}  {time.monotonic() - started:.1f} s"]
    click.echo("\n".join(lines))


@command(
    "tuneyard adapter show demo-rte",
    "tuneyard adapter show demo-rte demo-mnli --plot build/plots",
)
@click.argument("adapters", nargs=-1, required=True, metavar="NAME_OR_DIR…")
@click.option(
    "--plot", type=FOLDER, help="One file for all pictures (.png, .svg, .pdf), or a folder of one PNG each."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print all of it as JSON, spectra and histograms included."
)
@lang_option
def show(adapters: tuple[str, ...], plot: Path | None, as_json: bool) -> None:
    """Inspect adapters: modules, shapes, norms, spectra, cosine similarity."""
    import json
    from dataclasses import asdict

    from tqdm import tqdm

    from tuneyard.adapters.statistics import measure, similarity, text
    from tuneyard.adapters.store import open_adapter

    if plot:
        from tuneyard.adapters.plots import is_one_file

        is_one_file(plot)  # refuses a wrong path before anything is measured
    opened = [open_adapter(reference, with_base=True) for reference in adapters]
    shapes = bool(plot) or as_json
    measured = [
        measure(one, tqdm(one.paths, one.name, delay=2, leave=False), histograms=shapes) for one in opened
    ]
    pairs = list(zip(opened, measured, strict=True))
    cosines = [[similarity(one, other, (f.norm, g.norm)) for other, g in pairs] for one, f in pairs]
    if as_json:
        found = {"adapters": [asdict(one) for one in measured], "cosine": cosines}
        click.echo(json.dumps(found, ensure_ascii=False))
    else:
        click.echo("\n".join(text(measured, cosines)))
    if plot:
        from tuneyard.adapters.plots import draw

        for path in draw(plot, measured, cosines):
            click.echo(tr("wrote {path}", path=path), err=True)


@command(
    "tuneyard adapter export demo-rte --to gguf --base models/demo-base --out build/rte-lora.gguf",
    "tuneyard adapter export demo-rte --to hub --repo me/rte-lora --license apache-2.0 --dry-run",
)
@click.argument("reference", metavar="NAME_OR_DIR")
@click.option("--to", "target", type=click.Choice(list(TARGETS)), required=True)
@click.option("--base", type=FOLDER, help="Base model's folder, where none is named that is here.")
@click.option("--out", type=FOLDER, help="gguf, ollama: the file to write.")
@click.option("--force", is_flag=True, help="gguf, ollama: replace a file of this kind that is there.")
@click.option("--type", help="gguf: f16, q8_0, q4_0; with --llama-cpp q4_k_m and others.  [default: f16]")
@click.option("--llama-cpp", type=FOLDER, help="gguf: a checkout of llama.cpp, whose llama-quantize is used.")
@click.option("--from", "from_", help="ollama: an adapter's base as Ollama knows it, e.g. qwen2.5:0.5b.")
@click.option("--gguf", type=FOLDER, help="ollama: the file that --to gguf made of NAME_OR_DIR.")
@click.option("--system", help="ollama: system text; else the chat template's own.")
@click.option(
    "--parameter",
    multiple=True,
    help="ollama: NAME=VALUE, e.g. temperature=0; may repeat, and stop= adds a stop word each time.",
)
@click.option("--repo", help="hub: OWNER/NAME.")
@click.option("--private", is_flag=True, help="hub: make the repository a private one, if it is new.")
@click.option("--license", help="hub: licence of the base, e.g. apache-2.0.")
@click.option("--results", type=FOLDER, multiple=True, help="hub: folder of results.json files; may repeat.")
@click.option("--dry-run", is_flag=True, help="hub: list the files, print the card, send nothing.")
def export(reference: str, target: str, base: Path | None, **options: Any) -> None:  # Click's values
    """Upload to the hub with a card, or write a GGUF or an Ollama Modelfile."""
    import importlib

    from tuneyard.adapters.export.source import open_source

    for name, value in options.items():
        if value and target not in BELONGS[name]:
            option = name.strip("_").replace("_", "-")
            raise RequestError(f"--{option} belongs to --to {' or '.join(BELONGS[name])}, not to {target}")
    if target != "hub" and options["out"] is None:
        raise RequestError("no --out: the file to write")
    if target == "hub" and options["repo"] is None:
        raise RequestError("no --repo: OWNER/NAME of the repository on the hub")
    module = importlib.import_module(f"tuneyard.adapters.export.{TARGETS[target]}")
    getattr(module, f"to_{target}")(open_source(reference, base), options)


if __name__ == "__main__":
    run(cli)
