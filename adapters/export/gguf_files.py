"""Write GGUF files: a model, or an adapter as a LoRA.

llama.cpp (--lora) and Ollama (ADAPTER) load a LoRA with the base's GGUF. llama.cpp scales every module by
alpha over its rank, without patterns or rsLoRA. The rest of a scale is multiplied into B.
"""

import contextlib
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from tuneyard.adapters.export.source import (
    GGUF,
    MADE_OF,
    ExportSource,
    begins_with,
    check_file,
    gguf_fields,
    licence_of,
    open_export,
)
from tuneyard.adapters.model.adapter import name_of
from tuneyard.adapters.model.lora import LoraAdapter
from tuneyard.adapters.model.weighted import check_fit
from tuneyard.adapters.write.output import (
    Check,
    Progress,
    Written,
    is_there,
    make,
    no_progress,
    require_space,
    staged_for,
)
from tuneyard.core.errors import ContentError, RequestError, need
from tuneyard.core.execution.state import NEW, FileInput, Input, State, compare_inputs
from tuneyard.core.files import read_object
from tuneyard.core.language.message import PathText, _, joined, typed
from tuneyard.core.llamafactory.prompt.trained_files import TrainedFiles, read_trained
from tuneyard.core.text.quoting import shell
from tuneyard.core.weights.base_models import Base, open_base
from tuneyard.core.weights.tensors import STORED, Tensor, blocks_of, require_finite

if TYPE_CHECKING:
    from gguf import GGMLQuantizationType

TYPES = ("f16", "q8_0", "q4_0")  # gguf-py has no quantiser for llama.cpp's K types (q4_k_m and the like)
FILE_TYPES = {"f16": 1, "q8_0": 7, "q4_0": 2}
"""The numbers of the types in `general.file_type` (llama.cpp's `llama_ftype`)."""
LICENCE, ARCHITECTURE = _("licence"), _("architecture")  # of the inputs of a file
TABLES = ("token_embd.weight", "output.weight")
AT_ONCE = 1 << 22  # elements in memory


@dataclass(frozen=True, slots=True)
class GgufRequest:
    """An `export --to gguf` command: a model, or an adapter for `base`, by its reference."""

    reference: str
    out: Path
    base: Path | None = None
    type: str | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class GgufExport:
    """A checked model, or a checked adapter for the GGUF of its base.

    `write_file` gets the path, and another function that is called with bytes.
    """

    out: Path
    bytes: int
    write_file: Callable[[Path, Callable[[int], object]], None]
    check: Check
    notes: Sequence[str]

    def write(self, progress: Progress) -> Written:
        """Write the file, and report its size."""
        started = time.monotonic()
        target = self.check()
        require_space(target, self.bytes)
        notes: list[str] = []
        with staged_for(self.check, notes) as folder:
            self.write_file(folder / target.name, progress)
        line = _(
            "{path}  {size:,.1f} MB  {seconds:.1f} s",
            path=self.out,
            size=target.stat().st_size / 1e6,
            seconds=time.monotonic() - started,
        )
        return Written(self.out, [line], notes)


def export_gguf(request: GgufRequest, progress: Progress = no_progress) -> Written:
    """Write a model, or an adapter for its base, as a GGUF file, unless `request.out` is that file already.

    `progress` is called with the number of bytes done. Errors are those of `plan_gguf_export`.
    """
    before = NEW if request.force else state(request)
    return make(request.out, before, functools.partial(plan_gguf_export, request), progress)


def state(request: GgufRequest) -> State:
    """How far the result of a request is, by the fields of the file: hash of the source, type and licence.

    A GGUF has no hash of its own tensors, so that an edit of these is not noticed.
    """
    if not is_there(request.out):
        return NEW
    if not begins_with(request.out, GGUF):
        return State("stale", (_("{path} is no GGUF file", path=request.out),))
    fields = gguf_fields(request.out)
    made_of = fields.get(f"general.{MADE_OF}")
    if made_of is None:
        return State("stale", (_("{path} does not name its source", path=request.out),))
    source = _open(request)
    name = PathText(source.folder)
    recorded: dict[str, Input] = {name: FileInput(sha256=str(made_of))}
    present: dict[str, Input] = {name: FileInput(sha256=source.digest)}
    if source.adapter is None:
        recorded |= {"--type": _type_of(fields), LICENCE: fields.get("general.license")}
        present |= {"--type": gguf_type(request.type, request.out), LICENCE: _licence_name(source)}
    elif source.base is not None:
        config = source.base / "config.json"
        recorded[ARCHITECTURE] = fields.get("general.architecture")
        present[ARCHITECTURE] = read_architecture(config, read_object(config)).name
    return compare_inputs(recorded, present)


def plan_gguf_export(request: GgufRequest) -> GgufExport:
    """Check everything that can be checked before the first byte is written."""
    source = _open(request)
    check = functools.partial(check_file, request.out, source, GGUF, force=request.force)
    check(changes=lambda: state(request).changes)
    need("gguf")
    lora = source.lora
    if lora is None:
        return plan_model(source, source.folder, gguf_type(request.type, request.out), request.out, check)
    return _plan_lora(source, lora, request, check)


def _type_of(fields: Mapping[str, str | int]) -> str | int | None:
    """The type of a GGUF by the name for `--type`, or its number if it has none."""
    number = fields.get("general.file_type")
    for name, number_of_type in FILE_TYPES.items():
        if number == number_of_type:
            return name
    return number


def _open(request: GgufRequest) -> ExportSource:
    return open_export(request.reference, request.base, any_kind=False, publishes_base=True)


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


def plan_model(source: ExportSource, folder: Path, kind: str, out: Path, check: Check) -> GgufExport:
    """Plan the GGUF of the model in `folder`: that of the source, or its adapter fused into its base."""
    plan = plan_gguf(open_base(folder), kind)
    notes: list[str] = []
    if plan.vocabulary.composed:
        notes.append(_("the tokenizer composes text to NFC first, llama.cpp does not: send it composed text"))
    notes += further_ends_notes(plan)
    about = {"name": name_of(source.folder), MADE_OF: source.whole_digest}
    licence = _licence_name(source)
    if licence is not None:
        about["license"] = licence
    return GgufExport(out, plan.bytes, functools.partial(write_gguf, plan, about), check, notes)


def _licence_name(source: ExportSource) -> str | None:
    """The licence as a GGUF names it, None if it is not known."""
    licence = licence_of(source)
    if licence is None:
        return None
    fields, _unused = licence
    return fields.get("license_name", fields["license"])


def further_ends_notes(plan: "GgufPlan") -> list[str]:
    """A note on the end tokens for which a GGUF has no place."""
    if not plan.vocabulary.further_ends:
        return []
    return [
        _(
            "a GGUF has places for {number} end tokens: left out are the ids {ids}",
            number=len(END_NAMES),
            ids=joined(map(str, plan.vocabulary.further_ends)),
        )
    ]


def _plan_lora(source: ExportSource, adapter: LoraAdapter, request: GgufRequest, check: Check) -> GgufExport:
    if request.type:
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
    notes = check_fit([adapter], source.base, same_base=True)
    size = 4 * adapter.parameters
    return GgufExport(
        request.out, size, lambda path, _unused: write_lora(adapter, architecture, path), check, notes
    )


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
