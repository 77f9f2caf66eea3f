"""Writing GGUF files: a model in a type of ours or of llama.cpp's quantiser, or an adapter as a LoRA.

llama.cpp (--lora) and Ollama (ADAPTER) put a LoRA beside the base's GGUF. llama.cpp scales every module by
alpha over its own rank and knows neither patterns nor rsLoRA; what a scale is beyond that goes into B.
"""

import functools
import subprocess
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
import numpy as np

from adapters.base import open_base
from adapters.export.architecture import Architecture, read_architecture, reorder
from adapters.export.gguf_model import TYPES, plan_gguf, write_gguf
from adapters.export.source import ExportSource, check_file, licence_of
from adapters.output import note, require_space, staged_for
from adapters.store import Adapter, name_of
from core.errors import ContentError, RequestError
from core.files import read_object
from core.packages import need

QUANTISER = "llama-quantize"


def to_gguf(source: ExportSource, options: Mapping[str, Any]) -> None:
    """Write a model, or an adapter beside its base, as a GGUF file."""
    started = time.monotonic()
    check = functools.partial(check_file, options["out"], source, force=options["force"])
    target = check()
    need("gguf")
    staged = staged_for(target, check)
    (_lora if source.adapter else _model)(source, options, target, staged)
    size = target.stat().st_size
    click.echo(f"{options['out']}  {size / 1e6:,.1f} MB  {time.monotonic() - started:.1f} s")


def _model(
    source: ExportSource, options: Mapping[str, Any], target: Path, staged: AbstractContextManager[Path]
) -> None:
    """Write a model in one of our types, or in f16 that llama.cpp's quantiser turns into another."""
    from tqdm import tqdm

    kind, llama_cpp = (options["type"] or "f16").lower(), options["llama_cpp"]
    if kind in TYPES and llama_cpp:
        raise RequestError(f"--llama-cpp: {kind} is written without it; it is for types such as q4_k_m")
    if kind not in TYPES and not llama_cpp:
        raise RequestError(
            f"--type {kind}: {', '.join(TYPES)} are written here; for others the gguf package has "
            f"no quantiser, --llama-cpp DIR, a checkout of llama.cpp with its {QUANTISER}, makes them"
        )
    places = [llama_cpp / QUANTISER, llama_cpp / "build/bin" / QUANTISER] if llama_cpp else []
    quantiser = next((place.resolve() for place in places if place.is_file()), None)
    if places and quantiser is None:
        raise RequestError(
            f"{llama_cpp}: no {QUANTISER}; expected a checkout of llama.cpp with it built: cmake -B build && "
            f"cmake --build build --target {QUANTISER}"
        )
    plan = plan_gguf(open_base(source.folder), "f16" if quantiser else kind)
    require_space(target, plan.bytes)
    if plan.vocabulary.composed:
        note("the tokenizer composes text to NFC first, llama.cpp does not: send it composed text")
    about, licence = {"name": name_of(source.folder)}, licence_of(source)
    if licence:
        about["license"] = licence[0].get("license_name", licence[0]["license"])
    with staged as folder, tqdm(total=plan.bytes, unit="B", unit_scale=True, delay=2) as bar:
        written = folder / (f"{target.name}.f16" if quantiser else target.name)
        write_gguf(plan, written, about, bar.update)
        if quantiser:  # what it prints goes to stderr, which is 2
            done = subprocess.run([quantiser, written, folder / target.name, kind], stdout=2, check=False)
            if done.returncode:
                raise ContentError(
                    f"{quantiser} ended with exit code {done.returncode}; its own message is above"
                )


def _lora(
    source: ExportSource, options: Mapping[str, Any], target: Path, staged: AbstractContextManager[Path]
) -> None:
    adapter = source.adapter
    if options["type"] or options["llama_cpp"]:
        raise RequestError("--type and --llama-cpp are for models; an adapter's GGUF holds fp32, made here")
    if adapter is None or source.base is None:
        raise RequestError(
            f"{source.folder}: an adapter, which has no GGUF of its own as a model. Fuse it first: python -m "
            f"adapters fuse {source.folder} --base BASE --out DIR, and export that; or give --base BASE here "
            "for a GGUF LoRA that is loaded beside the base's GGUF"
        )
    config = source.base / "config.json"
    architecture = read_architecture(config, read_object(config))
    fuse = "fuse it: python -m adapters fuse"
    for name in adapter.full_tensors:
        raise ContentError(f"{adapter.folder}: {name}: a full tensor, not B·A; {fuse}")
    for path, module in adapter.layout.items():
        if module.kind != "linear" or path.endswith("lm_head"):
            raise ContentError(f"{adapter.folder}: {path}: no GGUF LoRA for embeddings and head; {fuse}")
        if architecture.gguf_name(path) is None:
            raise ContentError(f"{adapter.folder}: {path}: no module of {architecture.name}")
    with staged as folder:
        _write_lora(adapter, architecture, folder / target.name)


def _write_lora(adapter: Adapter, architecture: Architecture, path: Path) -> None:
    """Write A [rank, inputs] and B [outputs, rank] of each module in fp32."""
    from gguf import GGUFType, GGUFWriter

    writer = GGUFWriter(path, architecture.name)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", adapter.lora.alpha)
    for module in adapter.modules:
        a, b = adapter.factors(module)
        name = f"{architecture.gguf_name(module)}.weight"
        heads = architecture.heads(name)
        beyond = adapter.scale(module) * adapter.layout[module].rank / adapter.lora.alpha
        b = b if beyond == 1 else (b * np.float64(beyond)).astype(np.float32)
        writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a))
        writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(reorder(b, heads) if heads else b))
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
    finally:
        writer.close()
