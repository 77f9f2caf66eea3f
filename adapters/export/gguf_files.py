"""Writing GGUF files: a model in a type of ours or of llama.cpp's quantiser, or an adapter as a LoRA.

llama.cpp (--lora) and Ollama (ADAPTER) put a LoRA beside the base's GGUF. llama.cpp scales every module by
alpha over its own rank and knows neither patterns nor rsLoRA; what a scale is beyond that goes into B.
"""

import contextlib
import functools
import math
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.export.architecture import (
    Architecture,
    Vocabulary,
    read_architecture,
    read_vocabulary,
    reorder,
)
from tuneyard.adapters.export.source import GGUF, ExportSource, check_file, licence_of
from tuneyard.adapters.output import require_space, staged_for
from tuneyard.adapters.store import name_of, note
from tuneyard.core.base_models import Base, open_base
from tuneyard.core.errors import ContentError, RequestError, need
from tuneyard.core.files import read_object
from tuneyard.core.weights import STORED, Tensor, blocks_of, require_finite

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

Staged = AbstractContextManager[Path]
QUANTISER = "llama-quantize"
TYPES = ("f16", "q8_0", "q4_0")  # gguf-py has no quantiser for llama.cpp's K types (q4_k_m and the like)
TABLES = ("token_embd.weight", "output.weight")
AT_ONCE = 1 << 22  # elements in hand


def to_gguf(source: ExportSource, options: Mapping[str, Any]) -> None:
    """Write a model, or an adapter beside its base, as a GGUF file."""
    started = time.monotonic()
    check = functools.partial(check_file, options["out"], source, GGUF, force=options["force"])
    target = check()
    need("gguf")
    (_lora if source.adapter else _model)(source, options, target, staged_for(check))
    size = target.stat().st_size
    click.echo(f"{options['out']}  {size / 1e6:,.1f} MB  {time.monotonic() - started:.1f} s")


def _model(source: ExportSource, options: Mapping[str, Any], target: Path, staged: Staged) -> None:
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
    size = sum(entry.bytes for entry in plan.entries)
    require_space(target, size)
    if plan.vocabulary.composed:
        note("the tokenizer composes text to NFC first, llama.cpp does not: send it composed text")
    about, licence = {"name": name_of(source.folder)}, licence_of(source)
    if licence:
        about["license"] = licence[0].get("license_name", licence[0]["license"])
    with staged as folder, tqdm(total=size, unit="B", unit_scale=True, delay=2) as bar:
        written = folder / (f"{target.name}.f16" if quantiser else target.name)
        write_gguf(plan, written, about, bar.update)
        if quantiser:  # what it prints goes to stderr, which is 2
            done = subprocess.run([quantiser, written, folder / target.name, kind], stdout=2, check=False)
            if code := done.returncode:
                raise ContentError(f"{quantiser} ended with exit code {code}; its own message is above")


def _lora(source: ExportSource, options: Mapping[str, Any], target: Path, staged: Staged) -> None:
    """Write A [rank, inputs] and B [outputs, rank] of each module in fp32."""
    from gguf import GGUFType, GGUFWriter

    adapter = source.adapter
    if options["type"] or options["llama_cpp"]:
        raise RequestError("--type and --llama-cpp are for models; an adapter's GGUF holds fp32, made here")
    if adapter is None or source.base is None:
        raise RequestError(
            f"{source.folder}: an adapter, which has no GGUF of its own as a model. Fuse it first: "
            f"tuneyard adapter fuse {source.folder} --base BASE --out DIR, and export that; or give --base "
            "BASE here for a GGUF LoRA that is loaded beside the base's GGUF"
        )
    config = source.base / "config.json"
    architecture = read_architecture(config, read_object(config))
    fuse = "fuse it: tuneyard adapter fuse"
    for name in adapter.full_tensors:
        raise ContentError(f"{adapter.folder}: {name}: a full tensor, not B·A; {fuse}")
    for path, module in adapter.layout.items():
        if module.kind != "linear" or path.endswith("lm_head"):
            raise ContentError(f"{adapter.folder}: {path}: no GGUF LoRA for embeddings and head; {fuse}")
        if architecture.gguf_name(path) is None:
            raise ContentError(f"{adapter.folder}: {path}: no module of {architecture.name}")
    with staged as folder, contextlib.closing(GGUFWriter(folder / target.name, architecture.name)) as writer:
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", adapter.lora.alpha)
        for path, module in adapter.layout.items():
            a, b = adapter.factors(path)
            name = f"{architecture.gguf_name(path)}.weight"
            heads = architecture.heads(name)
            beyond = adapter.lora.scale_of(path) * module.rank / adapter.lora.alpha
            b = b if beyond == 1 else (b * np.float64(beyond)).astype(np.float32)
            writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a))
            writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(reorder(b, heads) if heads else b))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor to write: its name in the GGUF, where it is read from, and as what it is written."""

    name: str
    source: Tensor
    kind: "GGMLQuantizationType"
    heads: int | None

    @property
    def bytes(self) -> int:
        """Bytes of the written tensor."""
        from gguf import GGML_QUANT_SIZES

        block, size = GGML_QUANT_SIZES[self.kind]
        return math.prod(self.source.shape) // int(block) * int(size)


@dataclass(frozen=True, slots=True)
class GgufPlan:
    """A checked model and what of it is written."""

    architecture: Architecture
    vocabulary: Vocabulary
    type: str
    entries: list[Entry]


def plan_gguf(base: Base, kind: str) -> GgufPlan:
    """Check that every tensor has its place in a GGUF of type `kind`; nothing is written."""
    architecture = read_architecture(base.folder / "config.json", base.config)
    layers, tensors = architecture.count("num_hidden_layers"), len(base.tensors)
    if layers > tensors:  # llama.cpp's table of names grows with it
        raise ContentError(f"{base.folder}: {tensors} tensors, too few for num_hidden_layers {layers}")
    entries = list(_entries(base, architecture, kind))
    hidden, feed = architecture.count("hidden_size"), architecture.count("intermediate_size")
    query = architecture.count("num_attention_heads") * architecture.head_width
    keys, table = architecture.key_heads * architecture.head_width, (architecture.count("vocab_size"), hidden)
    layer = {
        "attn_norm": (hidden,), "attn_q": (query, hidden), "attn_k": (keys, hidden), "attn_v": (keys, hidden),
        "attn_output": (hidden, query), "ffn_norm": (hidden,), "ffn_gate": (feed, hidden),
        "ffn_up": (feed, hidden), "ffn_down": (hidden, feed),
    }  # fmt: skip
    shapes = {"token_embd.weight": table, "output_norm.weight": (hidden,), "output.weight": table}
    shapes |= {f"blk.{i}.{part}.weight": shape for i in range(layers) for part, shape in layer.items()}
    for entry in entries:  # llama.cpp would cut other shapes up wrongly
        shape = shapes.get(entry.name, entry.source.shape)
        if entry.source.shape != shape:
            raise ContentError(
                f"{entry.source.file}: tensor {entry.source.name!r}: shape {list(entry.source.shape)}, but "
                f"{architecture.path} makes it {list(shape)}"
            )
    vocabulary = read_vocabulary(base.folder, table[0])
    found = {entry.name for entry in entries} | ({"output.weight"} if base.tied else set())
    for name in shapes:
        if name not in found:
            raise ContentError(f"{base.folder}: no tensor for {name} (as llama.cpp calls it): damaged model")
    return GgufPlan(architecture, vocabulary, kind, entries)


def _entries(base: Base, architecture: Architecture, wanted: str) -> Iterator[Entry]:
    """Yield what is written, and how: vectors in fp32, embedding and head in no less than 8 bits."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    for tensor in base.tensors.values():
        if tensor.name.endswith("rotary_emb.inv_freq"):
            continue  # old checkpoints carry it; it follows from the config
        name = architecture.gguf_name(tensor.name)
        if name is None or tensor.dtype not in STORED or not 1 <= len(tensor.shape) <= 2:
            raise ContentError(
                f"{tensor.file}: tensor {tensor.name!r} ({tensor.dtype} {list(tensor.shape)}) has no "
                f"place in a GGUF of {architecture.name}"
            )
        if name == "output.weight" and base.tied:
            continue
        kind = GGMLQuantizationType["Q8_0" if wanted == "q4_0" and name in TABLES else wanted.upper()]
        if len(tensor.shape) == 1:
            kind = GGMLQuantizationType.F32
        elif tensor.shape[-1] % GGML_QUANT_SIZES[kind][0]:  # no whole blocks: as llama.cpp has them
            kind = GGMLQuantizationType.F16
        yield Entry(name, tensor, kind, architecture.heads(name))


def write_gguf(plan: GgufPlan, path: Path, about: dict[str, str], progress: Callable[[int], object]) -> None:
    """Write the file at `path`, which the caller renames; `about` is name and licence, progress in bytes."""
    from gguf import GGML_QUANT_VERSION, GGUFType, GGUFWriter, LlamaFileType

    with contextlib.closing(GGUFWriter(path, plan.architecture.name)) as writer:
        writer.add_type(GGUFType.MODEL)
        for key, value in about.items():
            writer.add_string(f"general.{key}", value)
        writer.add_file_type(LlamaFileType[f"MOSTLY_{plan.type.upper()}"])
        writer.add_quantization_version(GGML_QUANT_VERSION)
        plan.architecture.write(writer)
        plan.vocabulary.write(writer)
        fp32 = np.dtype(np.float32)
        for entry in plan.entries:
            shape, kind = entry.source.shape, entry.kind
            writer.add_tensor_info(entry.name, shape, fp32, entry.bytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        file: Any = writer.fout[0]  # past the writer, which would want each tensor whole
        writer.write_padding(file, file.tell())
        for entry in plan.entries:
            for block in _blocks(entry):
                file.write(block.data)
                progress(block.nbytes)
            writer.write_padding(file, entry.bytes)


def _blocks(entry: Entry) -> Iterator[NDArray[Any]]:
    """Yield a tensor's rows as they are written; one that is reordered by heads comes whole."""
    from gguf import GGMLQuantizationType, quantize

    for _, block in blocks_of(entry.source, math.prod(entry.source.shape) if entry.heads else AT_ONCE):
        rows = reorder(block, entry.heads) if entry.heads else block
        if entry.kind == GGMLQuantizationType.F16:
            with np.errstate(over="ignore"):
                half = rows.astype(np.float16)
            require_finite(half.astype(np.float32), f"{entry.source.name}: in f16, which ends at 65,504")
            yield np.ascontiguousarray(half)
        else:
            yield np.ascontiguousarray(quantize(rows, entry.kind))
