"""A model folder as one GGUF file, f16, q8_0 or q4_0, a few rows at a time."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from adapters.base import Base
from adapters.export.architecture import Architecture, read_architecture, reorder
from adapters.export.vocabulary import Vocabulary, read_vocabulary
from adapters.shards import blocks_of
from core.errors import ContentError
from core.weights import STORED, Tensor, require_finite

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

TYPES = ("f16", "q8_0", "q4_0")  # gguf-py has no quantiser for llama.cpp's K types (q4_k_m and the like)
TABLES = ("token_embd.weight", "output.weight")
AT_ONCE = 1 << 22  # elements in hand


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

    base: Base
    architecture: Architecture
    vocabulary: Vocabulary
    type: str
    entries: list[Entry]

    @property
    def bytes(self) -> int:
        """Size of all tensors."""
        return sum(entry.bytes for entry in self.entries)


def plan_gguf(base: Base, kind: str) -> GgufPlan:
    """Check that every tensor has its place in a GGUF of type `kind`; nothing is written."""
    architecture = read_architecture(base.folder / "config.json", base.config)
    layers, tensors = architecture.count("num_hidden_layers"), len(base.tensors)
    if layers > tensors:  # llama.cpp's table of names grows with it
        raise ContentError(f"{base.folder}: {tensors} tensors, too few for num_hidden_layers {layers}")
    entries = list(_entries(base, architecture, kind))
    shapes = _shapes(architecture)
    for entry in entries:  # llama.cpp would cut other shapes up wrongly
        shape = shapes.get(entry.name, entry.source.shape)
        if entry.source.shape != shape:
            raise ContentError(
                f"{entry.source.file}: tensor {entry.source.name!r}: shape {list(entry.source.shape)}, but "
                f"{architecture.path} makes it {list(shape)}"
            )
    vocabulary = read_vocabulary(base.folder, architecture.count("vocab_size"))
    found = {entry.name for entry in entries} | ({"output.weight"} if base.tied else set())
    for name in shapes:
        if name not in found:
            raise ContentError(f"{base.folder}: no tensor for {name} (as llama.cpp calls it): damaged model")
    return GgufPlan(base, architecture, vocabulary, kind, entries)


def _shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a model of this config has, by its name in the GGUF."""
    hidden, feed = architecture.count("hidden_size"), architecture.count("intermediate_size")
    query = architecture.count("num_attention_heads") * architecture.head_width
    keys, vocabulary = architecture.key_heads * architecture.head_width, architecture.count("vocab_size")
    layer = {
        "attn_norm": (hidden,), "attn_q": (query, hidden), "attn_k": (keys, hidden), "attn_v": (keys, hidden),
        "attn_output": (hidden, query), "ffn_norm": (hidden,), "ffn_gate": (feed, hidden),
        "ffn_up": (feed, hidden), "ffn_down": (hidden, feed),
    }  # fmt: skip
    layers = range(architecture.count("num_hidden_layers"))
    blocks = {f"blk.{i}.{part}.weight": shape for i in layers for part, shape in layer.items()}
    table = (vocabulary, hidden)
    ends = {"token_embd.weight": table, "output_norm.weight": (hidden,), "output.weight": table}
    return ends | blocks


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

    writer = GGUFWriter(path, plan.architecture.name)
    writer.add_type(GGUFType.MODEL)
    for key, value in about.items():
        writer.add_string(f"general.{key}", value)
    writer.add_file_type(LlamaFileType[f"MOSTLY_{plan.type.upper()}"])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    plan.architecture.write(writer)
    plan.vocabulary.write(writer)
    for entry in plan.entries:
        writer.add_tensor_info(
            entry.name, entry.source.shape, np.dtype(np.float32), entry.bytes, raw_dtype=entry.kind
        )
    try:
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
    finally:
        writer.close()


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
