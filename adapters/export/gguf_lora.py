"""An adapter as a GGUF LoRA, which llama.cpp (--lora) and Ollama (ADAPTER) put beside the base's GGUF.

llama.cpp scales every module by alpha over its own rank and knows neither patterns nor rsLoRA;
what a module's scale is beyond that goes into its B.
"""

from pathlib import Path

import numpy as np

from adapters.export.architecture import Architecture, reorder
from adapters.store import Adapter
from core.errors import ContentError


def check_lora(adapter: Adapter, architecture: Architecture) -> None:
    """Refuse what llama.cpp cannot take beside a base: embeddings, full tensors, unknown modules."""
    fuse = "fuse it: python -m adapters fuse"
    if adapter.full_tensors:
        raise ContentError(f"{adapter.folder}: {adapter.full_tensors[0]}: a full tensor, not B·A; {fuse}")
    for path, module in adapter.layout.items():
        if module.kind != "linear" or path.endswith("lm_head"):
            raise ContentError(f"{adapter.folder}: {path}: no GGUF LoRA for embeddings and head; {fuse}")
        if architecture.gguf_name(path) is None:
            raise ContentError(f"{adapter.folder}: {path}: no module of {architecture.name}")


def write_lora(adapter: Adapter, architecture: Architecture, path: Path) -> None:
    """Write the file at `path`, which the caller renames: A [rank, inputs], B [outputs, rank] in fp32."""
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
