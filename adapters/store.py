"""Adapters on the disk: found by name or folder, checked against their own config, read factor by factor.

What would be read wrongly in silence elsewhere is an error by name: an unknown prefix, a missing tensor (PEFT
fills with zeros and only warns).
"""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import click

from tuneyard.adapters.config import CONFIG, LoraConfig, read_config, require_text
from tuneyard.adapters.lowrank import Factor
from tuneyard.core.base_models import read_shards
from tuneyard.core.errors import ContentError, RequestError, nearest
from tuneyard.core.files import sha256
from tuneyard.core.weights import Array, Weights, open_weights

SAVES = Path("saves")
WEIGHTS = "adapter_model.safetensors"
WEIGHTS_INDEX = "adapter_model.safetensors.index.json"
PREFIX = "base_model.model."
PAIRS = {  # file suffixes of A and B by kind of module
    "linear": (".lora_A.weight", ".lora_B.weight"),
    "embedding": (".lora_embedding_A", ".lora_embedding_B"),
}
MAGNITUDE = ".lora_magnitude_vector"  # DoRA's m [outputs], one for each module
WRAPPED = ".base_layer"  # PEFT wraps a module once for each of its bare parameters, one inside the other
# Saved by PEFT beside a larger embedding in modules_to_save: its values again, and those before training.
DOUBLES = (".modules_to_save.", ".original_module.")
PICKLES = ("adapter_model.bin", "adapter_model.pt", "pytorch_model.bin")
MOST_MISSING = 0.25  # of a span of layers; where more are absent, the architecture has few of the kind


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
        """What must be the same in adapters that are added, e.g. `linear 256×2048`."""
        return f"{self.kind} {self.outputs}×{self.inputs}"


@dataclass(frozen=True)
class Adapter:
    """A checked LoRA adapter; `layout` holds its modules by path, layer by layer.

    A path is without PEFT's prefix, e.g. `model.layers.0.self_attn.q_proj`. `parameters` holds the factors of
    bare parameters (`target_parameters`) by the path of their wrapper, which does not name the parameter:
    `….mlp.experts` and `….mlp.experts.base_layer`. Their rank is that of all experts together.
    """

    folder: Path
    lora: LoraConfig
    weights: Weights
    layout: dict[str, Module]
    parameters: dict[str, Module]

    @property
    def name(self) -> str:
        """The folder's name, a checkpoint's with that of its run before it."""
        return name_of(self.folder)

    @property
    def paths(self) -> list[str]:
        """Paths of all factors: modules, then wrappers of bare parameters."""
        return [*self.layout, *self.parameters]

    @property
    def full_tensors(self) -> list[str]:
        """Names of tensors saved in full (`modules_to_save`, biases, base copies), e.g. `lm_head.weight`."""
        keys = self.weights.tensors.keys()
        left_out = {key for module in self.paths for key in self._keys(module)}
        if self.lora.dora:
            left_out |= {f"{PREFIX}{module}{MAGNITUDE}" for module in self.layout}
        for double in DOUBLES:
            left_out |= {key for key in keys if double in key and key.replace(double, ".") in keys}
        return [key.removeprefix(PREFIX) for key in keys if key not in left_out]

    def factors(self, module: str) -> tuple[Array, Array]:
        """Return A [rank, inputs] and B [outputs, rank] as fp32, unscaled; NaN is a `ContentError`."""
        down, up = self._keys(module)
        return self.weights.read(down), self.weights.read(up)

    def magnitude(self, module: str) -> Array:
        """DoRA's m [outputs] as fp32: the norms that the rows of W + s·B·A get."""
        return self.weights.read(f"{PREFIX}{module}{MAGNITUDE}")

    def full_tensor(self, name: str) -> Array:
        """Return one of `full_tensors` as fp32."""
        return self.weights.read(PREFIX + name)

    def transposed(self, module: str) -> bool:
        """Return whether the stored weight changes by (B·A)ᵀ: embeddings, Conv1D layers (fan_in_fan_out)."""
        return self.layout[module].kind == "embedding" or self.lora.fan_in_fan_out

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of the weights file and of the config, as hex."""
        parts = self.weights_sha256 + sha256(self.folder / CONFIG)
        return hashlib.sha256(parts.encode()).hexdigest()

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file (of the hashes of several, one after another), as hex."""
        hashes = [sha256(file) for file in self.files]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()

    @property
    def files(self) -> list[Path]:
        """The weights file, or all of several."""
        return sorted({tensor.file for tensor in self.weights.tensors.values()})

    def _keys(self, module: str) -> tuple[str, str]:
        kind = self.layout[module].kind if module in self.layout else self.parameters[module].kind
        down, up = PAIRS[kind]
        return f"{PREFIX}{module}{down}", f"{PREFIX}{module}{up}"


def note(text: str) -> None:
    """Tell the user of something that stops nothing, on stderr."""
    click.echo(f"note: {text}", err=True)


def open_adapter(reference: str | Path, *, with_base: bool = False) -> Adapter:
    """Open an adapter by its reference (`find_folder`) and check that config and weights explain each other.

    `with_base` accepts DoRA and `target_parameters`, whose ΔW also needs the base's weights.
    `RequestError` without one; `ContentError` where it is damaged or no plain LoRA; values are checked later.
    """
    folder = find_folder(reference)
    config = read_config(folder, with_base=with_base)
    weights = _open_weights(folder)
    require_text("\n".join(weights.tensors), weights.path)
    layout: dict[str, Module] = {}
    parameters: dict[str, Module] = {}
    with config.bounded():
        for path, module in sorted(_modules(weights), key=lambda pair: _natural(pair[0])):
            if config.parameters_of(unwrapped(path)) and not config.targets(path):
                parameters[path] = module
            else:
                layout[path] = module
        adapter = Adapter(folder, config, weights, layout, parameters)
        reason = next(_refusals(adapter), "")
    if reason:
        raise ContentError(f"{weights.path}: {reason}")
    return adapter


def unwrapped(path: str) -> str:
    """Path of the module that wrappers of its bare parameters surround."""
    while path.endswith(WRAPPED):
        path = path.removesuffix(WRAPPED)
    return path


def factors_by_expert(a: Factor, b: Factor, experts: int) -> Iterator[tuple[Factor, Factor]]:
    """Yield (A [r, inputs], B [outputs, r]) of each expert of a bare parameter's factors.

    A holds the experts one after the other, B takes them in turns (PEFT's ParamWrapper.get_delta_weight).
    """
    downs = a.reshape(experts, -1, a.shape[1])
    ups = b.reshape(b.shape[0], -1, experts)
    for expert in range(experts):
        yield downs[expert], ups[:, :, expert]


def find_folder(reference: str | Path) -> Path:
    """Return the folder that a reference means, by the one rule of all commands.

    A text with a slash, and every `Path`, is a path and nothing else. A bare name is saves/NAME, or a folder
    here if there is none; where both are there, a note says which was taken.
    """
    text, here = str(reference), Path(reference)
    if text.encode(errors="ignore") != os.fsencode(reference):
        raise RequestError(f"adapter {text!r}: its name is not UTF-8, as README.md is: rename it")
    bare = isinstance(reference, str) and "/" not in reference and reference not in (".", "..")
    found = [folder for folder in ([SAVES / here, here] if bare else [here]) if folder.is_dir()]
    if len(found) > 1:
        note(f"{text} means {SAVES}/{text}; for the folder {text} here, write ./{text}")
    if found:
        return found[0]
    saved = sorted(p.parent.name for p in SAVES.glob(f"*/{CONFIG}"))
    known = f"under {SAVES}/: {', '.join(saved)}" if saved else f"nothing lies under {SAVES}/"
    hint = nearest(text, saved)
    raise RequestError(f"adapter {text!r}: no such folder ({known}) {hint}".rstrip())


def name_of(folder: Path) -> str:
    """Return a folder's name, a checkpoint's with that of its run before it: `rte-checkpoint-100`."""
    folder = folder.resolve()
    return f"{folder.parent.name}-{folder.name}" if folder.name.startswith("checkpoint-") else folder.name


def _natural(path: str) -> list[str]:
    """Return a sort key by which layer 2 comes before layer 10."""
    return [part.zfill(8) if part.isdigit() else part for part in path.split(".")]


def _open_weights(folder: Path) -> Weights:
    path, index = folder / WEIGHTS, folder / WEIGHTS_INDEX
    if path.is_file():
        return open_weights(path)
    if index.is_file():
        shards = read_shards(index).values()
        return Weights(index, {name: t for shard in shards for name, t in shard.tensors.items()}, {})
    pickle = next((folder / name for name in PICKLES if (folder / name).is_file()), None)
    if pickle is None:
        raise ContentError(f"{folder}: {CONFIG} without {WEIGHTS}; training may not have finished")
    source, target = json.dumps(str(pickle)), json.dumps(str(path))
    code = (
        "import torch; from safetensors.torch import save_file; "
        f'found = torch.load({source}, weights_only=True, map_location="cpu"); '
        f'save_file({{k: v.contiguous() for k, v in found.items()}}, {target}, {{"format": "pt"}})'
    )
    raise ContentError(
        f"{pickle}: a pickle, which could run code when it is loaded; convert it without running any: "
        f"python -c {shlex.quote(code)}"
    )


def _modules(weights: Weights) -> Iterator[tuple[str, Module]]:
    """Yield (path, module) of each pair of factors; `ContentError` for what is none."""
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


def _refusals(adapter: Adapter) -> Iterator[str]:
    """Yield where config and weights do not explain each other: what is unexplained, and what is missing."""
    lora, layout, full_tensors = adapter.lora, adapter.layout, adapter.full_tensors
    yield from _magnitude_refusals(adapter)
    for path, factors in adapter.parameters.items():
        if factors.rank % lora.rank:
            expected = f"expected a multiple of {lora.rank}, the rank that {CONFIG} gives each expert"
            yield f"{path}: rank {factors.rank}, {expected}"
    for module, found in layout.items():
        if not lora.targets(module):
            yield f"{module}: has factors, but {CONFIG} does not target it"
        if found.rank != lora.rank_of(module):
            yield f"{module}: rank {found.rank}, but {CONFIG} gives it {lora.rank_of(module)}"
        adapter.lora.scale_of(module)  # tries alpha_pattern too, here where its time is bounded
    for name in full_tensors:
        module = name.rpartition(".")[0]
        copy_of_base = module.endswith(".base_layer") and module.removesuffix(".base_layer") in layout
        if PREFIX + name not in adapter.weights.tensors:
            yield f"{name}: expected names that begin with {PREFIX!r}"
        if not (copy_of_base or lora.saves_in_full(name)):
            yield f"{name}: {CONFIG} does not explain this tensor"
    if not layout and not adapter.parameters:
        yield "holds no LoRA factors"
    targets = lora.raw.get("target_modules")
    for target in targets if isinstance(targets, list) else []:
        there = any(module == target or module.endswith(f".{target}") for module in layout)
        if not there and not lora.may_exclude(target):
            yield f"{CONFIG} targets {target!r}, but no such tensor is there"
    for kept in lora.modules_to_save:
        if not any(name.rpartition(".")[0].endswith(kept) for name in full_tensors):
            yield f"modules_to_save names {kept!r}, but no such tensor is there"
    if lora.bias == "lora_only" and not any(name.endswith(".bias") for name in full_tensors):
        yield (
            "bias 'lora_only', but no bias was saved (PEFT never writes those of lora_only): its training "
            "cannot be reproduced"
        )
    if gap := find_missing(lora, layout):
        yield (
            f"{gap} is missing among others that are there; where the base has no such module, write the "
            f"whole paths of the modules into target_modules of {CONFIG}"
        )


def _magnitude_refusals(adapter: Adapter) -> Iterator[str]:
    """Yield the modules of a DoRA adapter whose magnitude is missing or has another shape than [outputs]."""
    if not adapter.lora.dora:
        return
    for path, module in adapter.layout.items():
        name = f"{PREFIX}{path}{MAGNITUDE}"
        tensor = adapter.weights.tensors.get(name)
        if tensor is None:
            yield f"{path}: its {MAGNITUDE.removeprefix('.')} is missing, and {CONFIG} says use_dora"
        elif tensor.shape != (module.outputs,):
            yield f"{name}: shape {list(tensor.shape)}, expected [{module.outputs}]"


def find_missing(config: LoraConfig, modules: Iterable[str]) -> str | None:
    """Return the path of a module or layer that seems to be missing, None where all is regular.

    Configs that name layers or whole paths, or a regular expression, say themselves what is there.
    """
    targets, excluded = (config.raw.get(name) or [] for name in ("target_modules", "exclude_modules"))
    paths = any(
        not isinstance(names, list) or any("." in name for name in names) for names in (targets, excluded)
    )
    if paths or not targets or config.raw.get("layers_to_transform") not in (None, []):
        return None
    siblings: dict[tuple[str, str], dict[int, set[str]]] = {}
    layers: dict[str, set[int]] = {}
    for module in modules:
        if found := re.match(r"(.*?)\.(\d+)\.(.*)$", f".{module}"):
            stack, (parent, _, name) = found[1].removeprefix("."), found[3].rpartition(".")
            layers.setdefault(stack, set()).add(int(found[2]))
            siblings.setdefault((stack, parent), {}).setdefault(int(found[2]), set()).add(name)
    gaps = [_missing_layer(stack, sorted(numbers)) for stack, numbers in layers.items()]
    gaps += [_missing_sibling(*key, found) for key, found in siblings.items()]
    return next(filter(None, gaps), None)


def _missing_layer(stack: str, numbers: list[int]) -> str | None:
    if _even(numbers) and (numbers[0] == 0 or numbers[-1] - numbers[0] >= 2 * len(numbers) - 2 > 0):
        return None
    absent = sorted(set(range(numbers[-1] + 1)) - set(numbers))
    if not absent or len(absent) > MOST_MISSING * (numbers[-1] + 1):
        return None
    return f"{stack}.{absent[0]}"


def _missing_sibling(stack: str, parent: str, found: dict[int, set[str]]) -> str | None:
    lacking = {
        number: next(other - names for other in found.values() if names < other)
        for number, names in found.items()
        if any(names < other for other in found.values())
    }
    numbers = sorted(lacking)
    if not numbers or (len(numbers) > 2 and _even(numbers)):
        return None
    return ".".join(filter(None, (stack, str(numbers[0]), parent, min(lacking[numbers[0]]))))


def _even(numbers: Sequence[int]) -> bool:
    return len({after - before for before, after in pairwise(numbers)}) <= 1
