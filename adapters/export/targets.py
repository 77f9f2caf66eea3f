"""Exporting from a checked folder to a file in its place or a commit on the hub."""

import functools
import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click

from adapters.base import open_base
from adapters.export.architecture import Architecture, read_architecture
from adapters.export.source import ExportSource, licence_of
from adapters.output import check_free, note, require_space, staged_for
from core.errors import ContentError, RequestError
from core.files import write_text
from core.packages import need
from core.prompt import saved_chat_template

Options = Mapping[str, Any]
Staged = AbstractContextManager[Path]


def to_hub(source: ExportSource, options: Options) -> None:
    """Upload with a card, or print what would be sent."""
    from adapters.export.hub import check_repo, plan_upload, send
    from adapters.export.model_card import make_card

    repo = check_repo(options["repo"])
    card = make_card(source, repo, options["license"], list(options["results"]))
    upload = plan_upload(source, repo, card.text, private=options["private"])
    for text in card.notes:
        note(text)
    for file in upload.files:
        click.echo(f"{file.stat().st_size:>14,}  {file.name}")
    click.echo(f"{len(card.text.encode()):>14,}  README.md (the card)")
    if upload.left_out:
        note(f"left out: {', '.join(upload.left_out)}")
    if options["dry_run"]:
        click.echo(f"\n{card.text}\nnothing sent (--dry-run); would send to {repo}")
        return
    click.echo(send(upload))


def to_gguf(source: ExportSource, options: Options) -> None:
    """Write a model, or an adapter beside its base, as a GGUF file."""
    started, kind = time.monotonic(), (options["type"] or "f16").lower()
    check = functools.partial(check_file, options["out"], source, force=options["force"])
    target = check()
    need("gguf")
    staged = staged_for(target, check)
    if source.adapter:
        _lora(source, options, target, staged)
    else:
        _model(source, kind, options["llama_cpp"], target, staged)
    size = target.stat().st_size
    click.echo(f"{options['out']}  {size / 1e6:,.1f} MB  {time.monotonic() - started:.1f} s")


def _model(source: ExportSource, kind: str, llama_cpp: Path | None, target: Path, staged: Staged) -> None:
    """Write a model in one of our types, or in f16 that llama.cpp's quantiser turns into `kind`."""
    from tqdm import tqdm

    from adapters.export.gguf_model import TYPES, plan_gguf, write_gguf
    from adapters.export.quantise import find_quantiser, quantise

    if kind in TYPES and llama_cpp:
        raise RequestError(f"--llama-cpp: {kind} is written without it; it is for types such as q4_k_m")
    if kind not in TYPES and not llama_cpp:
        raise RequestError(
            f"--type {kind}: {', '.join(TYPES)} are written here; for others the gguf package has "
            "no quantiser, --llama-cpp DIR, a checkout of llama.cpp with its llama-quantize, makes them"
        )
    quantiser = find_quantiser(llama_cpp) if llama_cpp else None
    plan = plan_gguf(open_base(source.folder), "f16" if quantiser else kind)
    require_space(target, plan.bytes)
    if plan.vocabulary.composed:
        note("the tokenizer composes text to NFC first, llama.cpp does not: send it composed text")
    licence = licence_of(source)
    about = {"name": source.name} | (
        {"license": licence[0].get("license_name", licence[0]["license"])} if licence else {}
    )
    with staged as folder, tqdm(total=plan.bytes, unit="B", unit_scale=True, delay=2) as bar:
        written = folder / (f"{target.name}.f16" if quantiser else target.name)
        write_gguf(plan, written, about, bar.update)
        if quantiser:
            quantise(quantiser, written, folder / target.name, kind)


def _lora(source: ExportSource, options: Options, target: Path, staged: Staged) -> None:
    from adapters.export.gguf_lora import check_lora, write_lora

    if options["type"] or options["llama_cpp"]:
        raise RequestError("--type and --llama-cpp are for models; an adapter's GGUF holds fp32, made here")
    architecture = _architecture_of_base(source)
    if source.adapter is None or architecture is None:
        raise RequestError(
            f"{source.folder}: an adapter, which has no GGUF of its own as a model. Fuse it first: python -m "
            f"adapters fuse {source.folder} --base BASE --out DIR, and export that; or give --base BASE here "
            "for a GGUF LoRA that is loaded beside the base's GGUF"
        )
    check_lora(source.adapter, architecture)
    with staged as folder:
        write_lora(source.adapter, architecture, folder / target.name)


def _architecture_of_base(source: ExportSource) -> Architecture | None:
    config = source.config
    return read_architecture(source.base / "config.json", config) if source.base and config else None


def to_ollama(source: ExportSource, options: Options) -> None:
    """Write a Modelfile."""
    from adapters.export import modelfile
    from adapters.export.chat import find_wrapping, renderer, thinks

    target = check_file(options["out"], source, force=options["force"])
    if source.adapter and not options["from_"]:
        raise RequestError("--from is needed for an adapter: its base as Ollama knows it, or a .gguf file")
    folders = [folder for folder in (source.folder, source.base) if folder]
    template = next((text for folder in folders if (text := saved_chat_template(folder))), None)
    if template is None:
        raise ContentError(f"{source.folder}: no chat template in it or in its base (--base)")
    render = renderer(template, modelfile.special_texts(folders))
    wrapping = find_wrapping(render)
    if thinks(render, wrapping):
        note("the chat template takes thoughts out of earlier answers, this TEMPLATE keeps them")
    if options["gguf"]:
        _check_gguf(options["gguf"])
    here = _relative(modelfile.adapter_line(source, options["gguf"]), target.parent)
    stops, parameters = modelfile.given_parameters(options["parameter"])
    found = modelfile.find_stops(folders, wrapping, modelfile.end_tokens(folders))
    system = wrapping.default if options["system"] is None else options["system"]
    written = modelfile.Modelfile(
        model=options["from_"] or here,
        adapter=here if source.adapter else None,
        wrapping=modelfile.without_bos(wrapping, folders),
        stops=list(dict.fromkeys([*found, *stops])),
        parameters=modelfile.find_parameters(folders) | parameters,
        system=system,
    )
    write_text(target, written.text())
    click.echo(f"{options['out']}  now: ollama create NAME -f {options['out']}")


def _check_gguf(path: Path) -> None:
    if not path.is_file() or path.open("rb").read(4) != b"GGUF":
        raise RequestError(f"--gguf {path}: no GGUF file there; make it with --to gguf")


def _relative(path: Path, folder: Path) -> str:
    """Return a path as a Modelfile in `folder` names it: Ollama takes it from there, and wants a `./`."""
    relative = os.path.relpath(path.resolve(), folder)
    return relative if relative.startswith("..") else f"./{relative}"


def check_file(out: Path, source: ExportSource, *, force: bool) -> Path:
    """Return `out` resolved; `RequestError` where it is a folder, lies in an input, or is there already."""
    target = out.resolve()
    for folder in (source.folder, source.base):
        if folder and folder.resolve() in target.parents:
            raise RequestError(f"{out}: lies in an input ({folder}); choose another --out")
    if target.is_dir():
        raise RequestError(f"{out}: a folder; expected the name of a file")
    check_free(out, force=force)
    return target
