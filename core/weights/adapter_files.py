"""The files of a LoRA or OFT adapter: the modules that it changes, their shapes, and whether a base fits.

`adapter fuse`, `eval` and `recipe check` refuse an adapter by the same rules (`module_misfit` and
`full_tensor_misfit`). This module reads headers only.
"""

import json
import math
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.errors import ContentError
from tuneyard.core.files import read_object
from tuneyard.core.weights.base_models import EMBEDDINGS, HEADS, Base, open_base, read_shards
from tuneyard.core.weights.tensors import Tensor, Weights, open_weights

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
WEIGHTS_INDEX = "adapter_model.safetensors.index.json"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "pytorch_model.bin")
PREFIX = "base_model.model."
PAIRS = {  # file suffixes of A and B by kind of module
    "linear": (".lora_A.weight", ".lora_B.weight"),
    "embedding": (".lora_embedding_A", ".lora_embedding_B"),
}
MAGNITUDE = ".lora_magnitude_vector"  # DoRA's m [outputs], one for each module
ROTATION = ".oft_R.weight"  # OFT's upper triangles [blocks, size·(size − 1)/2], one tensor for each module
# PEFT saves a larger embedding of modules_to_save twice more: its values again, and those before training.
DOUBLES = (".modules_to_save.", ".original_module.")
_LAYER_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class Module:
    """One adapted module: ΔW = s·B·A with A [rank, inputs] and B [outputs, rank].

    For an embedding, inputs are tokens and its weight [tokens, width] changes by the transpose.
    """

    kind: str
    outputs: int
    inputs: int
    rank: int

    @property
    def sizes(self) -> str:
        """Kind and shape, e.g. `linear 256×2048`; adapters can be added only if theirs are equal."""
        return f"{self.kind} {self.outputs}×{self.inputs}"

    def transposed(self, fan_in_fan_out: bool) -> bool:
        """True if the stored weight changes by (B·A)ᵀ: embeddings, Conv1D layers (fan_in_fan_out)."""
        return self.kind == "embedding" or fan_in_fan_out


@dataclass(frozen=True, slots=True)
class Rotation:
    """One module of an OFT adapter: rotations of its inputs, `size` of them together.

    The file has one rotation for each of `blocks` groups of inputs, or one for all groups (`block_share`).
    """

    blocks: int
    size: int


def open_adapter_weights(folder: Path) -> Weights:
    """Open an adapter's weights; `ContentError` without any, for damaged ones and for pickles."""
    path, index = folder / WEIGHTS, folder / WEIGHTS_INDEX
    if path.is_file():
        return open_weights(path)
    if index.is_file():
        tensors: dict[str, Tensor] = {}
        for shard in read_shards(index).values():
            tensors |= shard.tensors
        return Weights(index, tensors)
    pickle = find_pickle(folder)
    if pickle is None:
        raise ContentError(f"{folder}: {CONFIG} without {WEIGHTS}; training may not have finished")
    source, target = json.dumps(str(pickle)), json.dumps(str(path))
    code = (
        "import torch; from safetensors.torch import save_file; "
        f'tensors = torch.load({source}, weights_only=True, map_location="cpu"); '
        f'save_file({{k: v.contiguous() for k, v in tensors.items()}}, {target}, {{"format": "pt"}})'
    )
    raise ContentError(
        f"{pickle}: a pickle, which could run code when it is loaded; convert it without running any: "
        f"python -c {shlex.quote(code)}"
    )


def find_pickle(folder: Path) -> Path | None:
    """The adapter's weights as torch once pickled them, None if there are none."""
    for name in PICKLES:
        if (folder / name).is_file():
            return folder / name
    return None


def adapted_modules(weights: Weights) -> Iterator[tuple[str, Module]]:
    """Pair A and B of every module; `ContentError` if one is missing or the shapes do not match."""
    tensors = weights.tensors
    for key in tensors:
        where = f"{weights.path}: {key}"
        for kind, (down, up) in PAIRS.items():
            if key.endswith(up) and key.removesuffix(up) + down not in tensors:
                raise ContentError(f"{where}: its A is missing")
            if not key.endswith(down):
                continue
            stem = key.removesuffix(down)
            if stem + up not in tensors:
                raise ContentError(f"{where}: its B is missing")
            if not key.startswith(PREFIX):
                raise ContentError(f"{where}: expected names that begin with {PREFIX!r}")
            a, b = tensors[key].shape, tensors[stem + up].shape
            if len(a) != 2 or len(b) != 2:
                raise ContentError(f"{where}: shape {list(a)}, expected a matrix (no convolutions)")
            if a[0] != b[1]:
                raise ContentError(f"{where}: A {list(a)} and B {list(b)} do not fit together")
            if 0 in a + b:
                raise ContentError(f"{where}: A {list(a)} and B {list(b)} are empty (sharded ZeRO-3 save?)")
            yield stem.removeprefix(PREFIX), Module(kind, b[0], a[1], a[0])


def rotated_modules(weights: Weights) -> Iterator[tuple[str, Rotation]]:
    """The rotation of every module of an OFT adapter; `ContentError` for shapes that are no triangles."""
    for key, tensor in weights.tensors.items():
        if not key.endswith(ROTATION):
            continue
        where = f"{weights.path}: {key}"
        if not key.startswith(PREFIX):
            raise ContentError(f"{where}: expected names that begin with {PREFIX!r}")
        if len(tensor.shape) != 2 or 0 in tensor.shape:
            raise ContentError(f"{where}: shape {list(tensor.shape)}, expected [blocks, elements]")
        blocks, elements = tensor.shape
        size = (1 + math.isqrt(1 + 8 * elements)) // 2
        if size * (size - 1) // 2 != elements:
            raise ContentError(f"{where}: {elements} elements, not the triangle of a square matrix")
        yield key.removeprefix(PREFIX).removesuffix(ROTATION), Rotation(blocks, size)


def rotation_misfit(
    path: str, rotation: Rotation, shape: Sequence[int] | None, model: object, *, shared: bool
) -> str:
    """Reason why a weight of `shape` cannot take a module's rotation, "" if it can.

    `shape` is None if the model, which the message names, has no such module. `shared`: one rotation is for
    all blocks.
    """
    if shape is None:
        return f"{path}: {model} has no such module: another base?"
    if len(shape) != 2:
        return f"{path}: {model} has shape {list(shape)}, expected a matrix (no convolutions)"
    inputs = shape[1]
    if shared and inputs % rotation.size == 0:
        return ""
    if not shared and inputs == rotation.blocks * rotation.size:
        return ""
    made_for = f"{rotation.blocks} × {rotation.size}"
    if shared:
        made_for = f"a multiple of {rotation.size}"
    return f"{path}: made for {made_for} inputs, {model} has {inputs}: another base?"


def module_misfit(
    path: str, module: Module, shape: Sequence[int] | None, model: object, *, fan_in_fan_out: bool
) -> str:
    """Reason why a weight of `shape` cannot take a module's ΔW, "" if it can.

    `shape` is None if the model, which the message names, has no such module.
    """
    expected = [module.outputs, module.inputs]
    if module.transposed(fan_in_fan_out):
        expected.reverse()
    if shape is None:
        return f"{path}: {model} has no such module: another base?"
    if list(shape) != expected:
        return f"{path}: made for a weight of shape {expected}, {model} has {list(shape)}: another base?"
    return ""


def saved_in_full(weights: Weights, config: Mapping[str, object]) -> list[str]:
    """Names of the tensors that an adapter saves in full, without PEFT's prefix, e.g. `lm_head.weight`.

    They come from `modules_to_save`, from biases and from copies of the base (`….base_layer.weight`).
    `config` is the adapter's adapter_config.json.
    """
    factors = tuple(suffix for pair in PAIRS.values() for suffix in pair)
    if config.get("peft_type") == "OFT":
        factors = (ROTATION,)
    elif config.get("use_dora"):
        factors += (MAGNITUDE,)
    keys = weights.tensors.keys()
    names = []
    for key in keys:
        is_copy = any(double in key and key.replace(double, ".") in keys for double in DOUBLES)
        if not key.endswith(factors) and not is_copy:
            names.append(key.removeprefix(PREFIX))
    return names


def unwrapped_tensor(name: str) -> str:
    """Name of a tensor in the base. PEFT wraps modules: `embed_tokens.base_layer.weight`."""
    return name.replace(".base_layer.", ".")


def is_enlarged_table(name: str, shape: Sequence[int], base_shape: Sequence[int]) -> bool:
    """True if a tensor is an embedding or a head with more rows (tokens) than the base's."""
    same_width = list(shape[1:]) == list(base_shape[1:])
    return name.endswith((*EMBEDDINGS, *HEADS)) and same_width and list(shape[:1]) > list(base_shape[:1])


def full_tensor_misfit(
    name: str, shape: Sequence[int], base_shape: Sequence[int] | None, model: object, *, may_grow: bool
) -> str:
    """Reason why a tensor that is saved in full cannot take the place of the base's, "" if it can.

    `base_shape` is None if the model, which the message names, has no such tensor. `may_grow`: an embedding
    or a head may have new rows.
    """
    if base_shape is None:
        return f"{name}: {model} has no such tensor: another base?"
    if list(shape) == list(base_shape):
        return ""
    if not is_enlarged_table(name, shape, base_shape):
        return f"{name}: saved with shape {list(shape)}, {model} has {list(base_shape)}: another base?"
    if may_grow:
        return ""
    rows = f"saved with {shape[0]} rows, {model} has {base_shape[0]}"
    return f"{name}: {rows}: another base, or a larger vocabulary?"


def stored_shape(base: Base, tensor: str) -> tuple[int, ...] | None:
    """Shape of a tensor in the files of a model, None if it has none by this name."""
    stored = base.find(tensor)
    if stored is None:
        return None
    return base.tensors[stored].shape


def comparable_tensors(base: Base, tensors: Iterable[str]) -> set[str]:
    """Keep the tensors that the base has in some layer: a checkpoint may give others another name."""
    names = {_LAYER_NUMBER.sub("#", base.module_name(tensor)) for tensor in base.tensors}
    comparable = set()
    for tensor in tensors:
        is_in_some_layer = _LAYER_NUMBER.sub("#", tensor) in names
        if is_in_some_layer or stored_shape(base, tensor) is not None:
            comparable.add(tensor)
    return comparable


def misfits(
    base: Base, modules: Mapping[str, Module | Rotation], config: Mapping[str, object]
) -> Iterator[str]:
    """Yield why weights of the base cannot be changed by an adapter with this adapter_config.json."""
    for path, module in modules.items():
        shape = stored_shape(base, f"{path}.weight")
        if isinstance(module, Rotation):
            shared = config.get("block_share") is True
            misfit = rotation_misfit(path, module, shape, base.folder, shared=shared)
        else:
            transposes = config.get("fan_in_fan_out") is True
            misfit = module_misfit(path, module, shape, base.folder, fan_in_fan_out=transposes)
        if misfit:
            yield misfit


def first_misfit(adapter: Path, base_folder: Path, *, may_grow: bool) -> str:
    """First module or full tensor of the adapter that does not fit the base's shapes, "" if there is none.

    `may_grow`: embeddings and heads that the adapter saves in full may have more rows than the base's.
    """
    config = read_object(adapter / CONFIG)
    base = open_base(base_folder)
    weights = open_adapter_weights(adapter)
    modules: dict[str, Module | Rotation] = dict(adapted_modules(weights))
    modules.update(rotated_modules(weights))
    known = comparable_tensors(base, [f"{path}.weight" for path in modules])
    compared = {path: module for path, module in modules.items() if f"{path}.weight" in known}
    for misfit in misfits(base, compared, config):
        return misfit
    full_tensors = saved_in_full(weights, config)
    comparable = comparable_tensors(base, map(unwrapped_tensor, full_tensors))
    for name in full_tensors:
        in_base = unwrapped_tensor(name)
        if in_base not in comparable:
            continue
        if PREFIX + name not in weights.tensors:
            return f"{weights.path}: {name}: expected names that begin with {PREFIX!r}"
        saved_shape = weights.tensors[PREFIX + name].shape
        misfit = full_tensor_misfit(
            in_base, saved_shape, stored_shape(base, in_base), base_folder, may_grow=may_grow
        )
        if misfit:
            return misfit
    return ""
