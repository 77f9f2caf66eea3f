"""Adapters for tests: random factors in files that the reference library wrote."""

import math
from pathlib import Path

import numpy as np
from safetensors import TensorSpec, serialize

from tests.json_files import write_json

PREFIX = "base_model.model."
CONFIG = {
    "base_model_name_or_path": "org/base",
    "bias": "none",
    "lora_alpha": 16,
    "peft_type": "LORA",
    "r": 8,
    "target_modules": ["q_proj", "v_proj"],
    "task_type": "CAUSAL_LM",
}
SHAPES = {"q_proj": (24, 24), "v_proj": (12, 24)}  # outputs, inputs
NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64"}


def bf16_bits(values):
    """Round to bf16 by hand: nearest among the two neighbours, ties to the even one, in fp64."""
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    low, rest = bits >> 16, bits & 0xFFFF
    return np.where((rest > 0x8000) | ((rest == 0x8000) & (low & 1 == 1)), low + 1, low).astype(np.uint16)


def write_file(path, tensors, dtype="F32"):
    """Write arrays with the safetensors library; `dtype` is given for all of them."""
    kinds = {"F32": np.float32, "F16": np.float16, "F64": np.float64}
    arrays, specs = [], {}
    for name, values in tensors.items():
        data = np.ascontiguousarray(
            bf16_bits(values) if dtype == "BF16" else np.asarray(values, kinds[dtype])
        )
        arrays.append(data)  # alive until serialised: the library is given bare addresses
        where = {"data_ptr": data.ctypes.data, "data_len": data.nbytes}
        specs[name] = TensorSpec(dtype=NAMES[dtype], shape=list(np.shape(values)), **where)
    Path(path).write_bytes(serialize(specs, {"format": "pt"}))


def stored(tensor):
    """Read a tensor's values as its file has them; BF16 as bit patterns."""
    kind = np.dtype({"BF16": np.uint16, "F16": np.float16, "F32": np.float32}[tensor.dtype])
    return np.fromfile(tensor.file, kind, math.prod(tensor.shape), offset=tensor.start).reshape(tensor.shape)


def factors(seed=0, layers=2, rank=8, shapes=SHAPES):
    """Return {module: (A, B)}, standard normal fp32; `rank` is a number or a function of the module."""
    rng = np.random.default_rng(seed)
    found = {}
    for layer in range(layers):
        for name, (outputs, inputs) in shapes.items():
            module = f"model.layers.{layer}.self_attn.{name}"
            r = rank(module) if callable(rank) else rank
            a, b = rng.standard_normal((r, inputs)), rng.standard_normal((outputs, r))
            found[module] = a.astype(np.float32), b.astype(np.float32)
    return found


def tensors_of(pairs):
    """Return the tensors of a PEFT file for {module: (A, B)}."""
    found = {}
    for module, (a, b) in pairs.items():
        embedding = module.endswith("embed_tokens")
        found[f"{PREFIX}{module}" + (".lora_embedding_A" if embedding else ".lora_A.weight")] = a
        found[f"{PREFIX}{module}" + (".lora_embedding_B" if embedding else ".lora_B.weight")] = b
    return found


def make(folder, pairs=None, dtype="F32", extra=None, drop=(), **config):
    """Write an adapter folder and return it; keywords replace fields of the config (None takes one out)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {**tensors_of(factors() if pairs is None else pairs), **(extra or {})}
    tensors = {name: value for name, value in tensors.items() if name not in drop}
    write_file(folder / "adapter_model.safetensors", tensors, dtype)
    write_json(folder / "adapter_config.json", {**CONFIG, **config})
    return folder


def dense(pairs, alpha=16, rslora=False):
    """Return {module: s·B·A} in fp64."""
    found = {}
    for module, (a, b) in pairs.items():
        rank = a.shape[0]
        found[module] = (
            alpha / (math.sqrt(rank) if rslora else rank) * (b.astype(np.float64) @ a.astype(np.float64))
        )
    return found


def delta(adapter, module):
    """Return the dense ΔW that an opened adapter says, in fp64."""
    a, b = adapter.factors(module)
    return adapter.config.scale_of(module) * (b.astype(np.float64) @ a.astype(np.float64))


def make_base(folder, tensors, dtype="BF16", shards=1, **config):
    """Write a base model folder: tensors dealt out over `shards` files, config, a tokenizer file."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    size = -(-len(names) // shards)
    places = {}
    for i in range(shards):
        part = names[i * size : (i + 1) * size]
        file = "model.safetensors" if shards == 1 else f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        write_file(folder / file, {name: tensors[name] for name in part}, dtype)
        places |= dict.fromkeys(part, file)
    if shards > 1:
        index = {"metadata": {}, "weight_map": places}
        write_json(folder / "model.safetensors.index.json", index)
    write_json(folder / "config.json", {"model_type": "qwen2", "torch_dtype": "bfloat16", **config})
    (folder / "tokenizer.json").write_text("{}")
    return folder


def base_tensors(seed=0, layers=2, shapes=SHAPES, std=0.03, vocabulary=50):
    """Return the tensors of a base that the default adapters fit: embedding, layers with a norm, biases."""
    rng = np.random.default_rng(1000 + seed)

    def normal(*shape):
        return (rng.standard_normal(shape) * std).astype(np.float32)

    found = {"model.embed_tokens.weight": normal(vocabulary, 24)}
    for layer in range(layers):
        for name, (outputs, inputs) in shapes.items():
            found[f"model.layers.{layer}.self_attn.{name}.weight"] = normal(outputs, inputs)
            found[f"model.layers.{layer}.self_attn.{name}.bias"] = normal(outputs)
        found[f"model.layers.{layer}.norm.weight"] = normal(24)
    return found


def gguf_fields(path):
    """A GGUF's metadata as Python values."""
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}
