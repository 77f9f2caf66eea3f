"""Write GGUF files: a model, or an adapter as a LoRA.

llama.cpp (--lora) and Ollama (ADAPTER) load a LoRA with the base's GGUF. llama.cpp scales every module by
alpha over its rank, without patterns or rsLoRA. The rest of a scale is multiplied into B.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tuneyard.adapters.export.architecture import (
    END_NAMES,
    Architecture,
    Vocabulary,
    read_architecture,
    read_vocabulary,
    reorder,
)
from tuneyard.adapters.export.source import GGUF, MADE_OF, ExportSource, check_file, licence_of
from tuneyard.adapters.model.adapter import name_of
from tuneyard.adapters.model.lora import LoraAdapter
from tuneyard.adapters.model.store import note
from tuneyard.adapters.model.weighted import check_fit
from tuneyard.adapters.write.output import Check, require_space, staged_for
from tuneyard.core.errors import ContentError, RequestError, need
from tuneyard.core.files import read_object
from tuneyard.core.language.message import _, joined, typed
from tuneyard.core.language.messages import say
from tuneyard.core.llamafactory.prompt.trained_files import TrainedFiles, read_trained
from tuneyard.core.text.quoting import shell
from tuneyard.core.weights.base_models import Base, open_base
from tuneyard.core.weights.tensors import STORED, Tensor, blocks_of, require_finite

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

TYPES = ("f16", "q8_0", "q4_0")  # gguf-py has no quantiser for llama.cpp's K types (q4_k_m and the like)
TABLES = ("token_embd.weight", "output.weight")
AT_ONCE = 1 << 22  # elements in memory


@dataclass(frozen=True, slots=True)
class GgufExport:
    """A checked model, or a checked adapter for the GGUF of its base: its size, and the function to write it.

    The function gets the path, and another function that is called with bytes.
    """

    bytes: int
    write: Callable[[Path, Callable[[int], object]], None]


def to_gguf(source: ExportSource, options: Mapping[str, Any]) -> None:
    """Write a model, or an adapter for its base, as a GGUF file.

    Everything that can be checked is checked before the first byte is written.
    """
    out: Path = options["out"]
    check = functools.partial(check_file, out, source, GGUF, force=options["force"])
    check()
    need("gguf")
    lora = source.lora
    if lora:
        export = _plan_lora(source, lora, options)
    else:
        export = plan_model(source, source.folder, gguf_type(options["type"], out))
    write_export(export, out, check)


def write_export(export: GgufExport, out: Path, check: Check) -> None:
    """Write a planned file, and print its size."""
    from tqdm import tqdm

    started = time.monotonic()
    target = check()
    require_space(target, export.bytes)
    notes: list[str] = []
    with (
        staged_for(check, notes) as folder,
        tqdm(total=export.bytes, unit="B", unit_scale=True, delay=2) as bar,
    ):
        export.write(folder / target.name, bar.update)
    for text in notes:
        note(text)
    size = target.stat().st_size
    say(
        _(
            "{path}  {size:,.1f} MB  {seconds:.1f} s",
            path=out,
            size=size / 1e6,
            seconds=time.monotonic() - started,
        )
    )


def gguf_type(name: str | None, out: Path) -> str:
    """The value of --type in lower case; `RequestError` for one that only llama.cpp writes."""
    kind = (name or "f16").lower()
    if kind not in TYPES:
        raise RequestError(
            _(
                "--type {kind}: the gguf package writes {types}; for other types write f16, and let "
                "llama.cpp quantise it: llama-quantize {options} OUT.gguf {kind}",
                kind=kind,
                types=joined(TYPES),
                options=out,
            )
        )
    return kind


def plan_model(source: ExportSource, folder: Path, kind: str) -> GgufExport:
    """Plan the GGUF of the model in `folder`: that of the source, or its adapter fused into its base."""
    plan = plan_gguf(open_base(folder), kind)
    if plan.vocabulary.composed:
        note(_("the tokenizer composes text to NFC first, llama.cpp does not: send it composed text"))
    note_further_ends(plan)
    about = {"name": name_of(source.folder), MADE_OF: source.whole_digest}
    licence = licence_of(source)
    if licence:
        fields, _unused = licence
        about["license"] = fields.get("license_name", fields["license"])
    return GgufExport(plan.bytes, functools.partial(write_gguf, plan, about))


def note_further_ends(plan: "GgufPlan") -> None:
    """Name the end tokens for which a GGUF has no place."""
    if plan.vocabulary.further_ends:
        note(
            _(
                "a GGUF has places for {number} end tokens: left out are the ids {ids}",
                number=len(END_NAMES),
                ids=joined(map(str, plan.vocabulary.further_ends)),
            )
        )


def _plan_lora(source: ExportSource, adapter: LoraAdapter, options: Mapping[str, Any]) -> GgufExport:
    if options["type"]:
        raise RequestError(_("--type is for models; an adapter's GGUF is always fp32: leave it out"))
    if source.base is None:
        raise RequestError(
            _(
                "{folder}: an adapter alone cannot become a GGUF model. Fuse it with its base first: "
                "tuneyard adapter fuse {word} --base BASE --out DIR, and export that; or give "
                "--base BASE here for a GGUF LoRA that is loaded beside the base's GGUF",
                folder=source.folder,
                word=shell(source.folder),
            )
        )
    architecture = check_lora(adapter, source.base)
    # The file has nothing of the base but its shapes.
    for text in check_fit([adapter], source.base, same_base=True):
        note(text)
    return GgufExport(4 * adapter.parameters, lambda path, _unused: write_lora(adapter, architecture, path))


def check_lora(adapter: LoraAdapter, base: Path) -> Architecture:
    """The base's architecture. `ContentError` for an adapter that cannot be a GGUF LoRA as a whole."""
    config = base / "config.json"
    architecture = read_architecture(config, read_object(config))
    fuse = _("fuse it: {command}", command=typed(adapter.fuse_words(str(base))))
    full_tensors = adapter.full_tensors
    if full_tensors:
        raise ContentError(
            _(
                "{folder}: {tensors}: a full tensor, not B·A; {hint}",
                folder=adapter.folder,
                tensors=full_tensors[0],
                hint=fuse,
            )
        )
    for path, module in adapter.modules.items():
        if module.kind != "linear" or path.endswith("lm_head"):
            raise ContentError(
                _(
                    "{folder}: {path}: no GGUF LoRA for embeddings and head; {hint}",
                    folder=adapter.folder,
                    path=path,
                    hint=fuse,
                )
            )
        if architecture.gguf_name(path) is None:
            raise ContentError(
                _(
                    "{folder}: {path}: no module of {name}",
                    folder=adapter.folder,
                    path=path,
                    name=architecture.name,
                )
            )
    return architecture


def write_lora(adapter: LoraAdapter, architecture: Architecture, path: Path) -> None:
    """Write A [rank, inputs] and B [outputs, rank] of each module in fp32."""
    from gguf import GGUFType, GGUFWriter

    with contextlib.closing(GGUFWriter(path, architecture.name)) as writer:
        writer.add_type(GGUFType.ADAPTER)
        writer.add_string(f"general.{MADE_OF}", adapter.digest)
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", adapter.config.alpha)
        for module_path, module in adapter.modules.items():
            a, b = adapter.factors(module_path)
            name = f"{architecture.gguf_name(module_path)}.weight"
            heads = architecture.heads(name)
            extra_scale = adapter.config.scale_of(module_path) * module.rank / adapter.config.alpha
            if extra_scale != 1:
                b = (b * np.float64(extra_scale)).astype(np.float32)
            if heads:
                b = reorder(b, heads)
            writer.add_tensor(f"{name}.lora_a", np.ascontiguousarray(a))
            writer.add_tensor(f"{name}.lora_b", np.ascontiguousarray(b))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor to write: its name and type in the GGUF, and its source."""

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
    """A checked model and the tensors to write."""

    architecture: Architecture
    vocabulary: Vocabulary
    type: str
    entries: list[Entry]

    @property
    def bytes(self) -> int:
        """Size of the tensors."""
        return sum(entry.bytes for entry in self.entries)


def plan_gguf(base: Base, kind: str, trained: TrainedFiles | None = None) -> GgufPlan:
    """Check that every tensor has its place in a GGUF of type `kind`.

    Tokenizer, chat template and end tokens are those of `trained`, by default the model's.
    """
    architecture = read_architecture(base.folder / "config.json", base.config)
    layers, tensors = architecture.count("num_hidden_layers"), len(base.tensors)
    if layers > tensors:  # which decides the size of llama.cpp's table of names
        raise ContentError(
            _(
                "{folder}: {tensors} tensors, too few for num_hidden_layers {layers}",
                folder=base.folder,
                tensors=tensors,
                layers=layers,
            )
        )
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
    for number in range(layers):
        for part, shape in layer.items():
            shapes[f"blk.{number}.{part}.weight"] = shape
    for entry in entries:  # llama.cpp would cut other shapes up wrongly
        expected_shape = shapes.get(entry.name, entry.source.shape)
        if entry.source.shape != expected_shape:
            raise ContentError(
                _(
                    "{file}: tensor {name!r}: shape {shape}, but {path} makes it {expected_shape}",
                    file=entry.source.file,
                    name=entry.source.name,
                    shape=list(entry.source.shape),
                    path=architecture.path,
                    expected_shape=list(expected_shape),
                )
            )
    vocabulary = read_vocabulary(trained or read_trained(base.folder), table[0])
    names = {entry.name for entry in entries}
    if base.tied:
        names.add("output.weight")
    for name in shapes:
        if name not in names:
            raise ContentError(
                _(
                    "{folder}: no tensor for {name} (as llama.cpp calls it): damaged model",
                    folder=base.folder,
                    name=name,
                )
            )
    return GgufPlan(architecture, vocabulary, kind, entries)


def _entries(base: Base, architecture: Architecture, gguf_type: str) -> Iterator[Entry]:
    """Choose the type of each tensor: vectors in fp32, embedding and head in at least 8 bits."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    for tensor in base.tensors.values():
        if tensor.name.endswith("rotary_emb.inv_freq"):
            continue  # only old checkpoints have it; it follows from the config
        name = architecture.gguf_name(tensor.name)
        if name is None or tensor.dtype not in STORED or not 1 <= len(tensor.shape) <= 2:
            raise ContentError(
                _(
                    "{file}: tensor {name!r} ({dtype} {shape}) has no place in a GGUF of {architecture}",
                    file=tensor.file,
                    name=tensor.name,
                    dtype=tensor.dtype,
                    shape=list(tensor.shape),
                    architecture=architecture.name,
                )
            )
        if name == "output.weight" and base.tied:
            continue
        kind = GGMLQuantizationType[gguf_type.upper()]
        if gguf_type == "q4_0" and name in TABLES:
            kind = GGMLQuantizationType.Q8_0
        if len(tensor.shape) == 1:
            kind = GGMLQuantizationType.F32
        elif tensor.shape[-1] % GGML_QUANT_SIZES[kind][0]:  # not whole blocks: llama.cpp uses f16 too
            kind = GGMLQuantizationType.F16
        yield Entry(name, tensor, kind, architecture.heads(name))


def write_gguf(
    plan: GgufPlan,
    about: dict[str, str],
    path: Path,
    progress: Callable[[int], object],
    *,
    for_chats: bool = False,
) -> None:
    """Write the file at `path`. `about` has name and licence; `progress` is called with bytes.

    `for_chats`: all prompts come from a chat template, which writes BOS itself. Otherwise the tokenizer
    decides if a text begins with it.
    """
    from gguf import GGML_QUANT_VERSION, GGUFType, GGUFWriter, LlamaFileType

    with contextlib.closing(GGUFWriter(path, plan.architecture.name)) as writer:
        writer.add_type(GGUFType.MODEL)
        for key, value in about.items():
            writer.add_string(f"general.{key}", value)
        writer.add_file_type(LlamaFileType[f"MOSTLY_{plan.type.upper()}"])
        writer.add_quantization_version(GGML_QUANT_VERSION)
        plan.architecture.write(writer)
        plan.vocabulary.write(writer, for_chats=for_chats)
        fp32 = np.dtype(np.float32)
        for entry in plan.entries:
            shape, kind = entry.source.shape, entry.kind
            writer.add_tensor_info(entry.name, shape, fp32, entry.bytes, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        file: Any = writer.fout[0]  # without the writer, which takes only whole tensors
        writer.write_padding(file, file.tell())
        for entry in plan.entries:
            for block in _blocks(entry):
                file.write(block.data)
                progress(block.nbytes)
            writer.write_padding(file, entry.bytes)


def _blocks(entry: Entry) -> Iterator[NDArray[Any]]:
    """Yield a tensor's rows in their written type. A tensor that is reordered by heads comes whole."""
    from gguf import GGMLQuantizationType, quantize

    elements = AT_ONCE
    if entry.heads:
        elements = math.prod(entry.source.shape)
    for _unused, rows in blocks_of(entry.source, elements):
        ordered = rows
        if entry.heads:
            ordered = reorder(rows, entry.heads)
        if entry.kind == GGMLQuantizationType.F16:
            with np.errstate(over="ignore"):
                half = ordered.astype(np.float16)
            require_finite(
                half.astype(np.float32), _("{name}: in f16, which ends at 65,504", name=entry.source.name)
            )
            yield np.ascontiguousarray(half)
        else:
            yield np.ascontiguousarray(quantize(ordered, entry.kind))
