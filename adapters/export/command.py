"""`python -m adapters export NAME_OR_DIR --to hub|ollama|gguf`: hand an adapter or a model on."""

from pathlib import Path
from typing import Any

import click

from core.cli import examples
from core.errors import CLI, RequestError

BELONGS = {  # options that only some targets take
    "out": ("gguf", "ollama"), "repo": ("hub",), "results": ("hub",), "license": ("hub",),
    "private": ("hub",), "dry_run": ("hub",), "type": ("gguf",), "llama_cpp": ("gguf",),
    "from_": ("ollama",), "gguf": ("ollama",), "system": ("ollama",), "parameter": ("ollama",),
    "force": ("gguf", "ollama"),
}  # fmt: skip
TARGETS = {"hub": "hub", "ollama": "modelfile", "gguf": "gguf_files"}  # and the module of each
FOLDER = click.Path(path_type=Path)


@click.command(
    context_settings=CLI,
    epilog=examples(
        "tuneyard adapter export demo-rte --to gguf --base models/demo-base --out build/rte-lora.gguf",
        "tuneyard adapter export demo-rte --to hub --repo me/rte-lora --license apache-2.0 --dry-run",
    ),
)
@click.argument("reference", metavar="NAME_OR_DIR")
@click.option("--to", "target", type=click.Choice(list(TARGETS)), required=True)
@click.option("--base", type=FOLDER, help="Base model's folder, where none is named that is here.")
@click.option("--out", type=FOLDER, help="gguf, ollama: the file to write.")
@click.option("--force", is_flag=True, help="gguf, ollama: replace a file that is already there.")
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

    from adapters.export.source import open_source

    for name, value in options.items():
        if value and target not in BELONGS[name]:
            option = name.strip("_").replace("_", "-")
            raise RequestError(f"--{option} belongs to --to {' or '.join(BELONGS[name])}, not to {target}")
    if target != "hub" and options["out"] is None:
        raise RequestError("no --out: the file to write")
    if target == "hub" and options["repo"] is None:
        raise RequestError("no --repo: OWNER/NAME of the repository on the hub")
    module = importlib.import_module(f"adapters.export.{TARGETS[target]}")
    getattr(module, f"to_{target}")(open_source(reference, base), options)
