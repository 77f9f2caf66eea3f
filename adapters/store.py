"""Find adapters by name or folder, check their weights against their config, and read their factors.

An unknown prefix or a missing tensor is an error here. PEFT fills missing tensors with zeros and only warns.
"""

import hashlib
import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import click

from tuneyard.adapters.config import LoraConfig, OftConfig, read_config, require_text
from tuneyard.adapters.lowrank import Factor
from tuneyard.core.errors import ContentError, RequestError, nearest
from tuneyard.core.files import sha256
from tuneyard.core.weights.adapter_files import (
    CONFIG,
    MAGNITUDE,
    PAIRS,
    PREFIX,
    ROTATION,
    Module,
    Rotation,
    adapted_modules,
    open_adapter_weights,
    rotated_modules,
    saved_in_full,
)
from tuneyard.core.weights.tensors import Array, Weights

SAVES = Path("saves")
WRAPPED = ".base_layer"  # PEFT wraps a module once for each of its bare parameters, one inside the other


@dataclass(frozen=True)
class Adapter:
    """A checked LoRA or OFT adapter. `layout` lists the modules of a LoRA by path, layer by layer.

    A path has no PEFT prefix, e.g. `model.layers.0.self_attn.q_proj`. `parameters` lists the factors of bare
    parameters (`target_parameters`) by the path of their wrapper, which does not name the parameter:
    `….mlp.experts` and `….mlp.experts.base_layer`. Their rank is the sum over all experts. `rotations` lists
    the modules of an OFT adapter, which has no factors.
    """

    folder: Path
    config: LoraConfig | OftConfig
    weights: Weights
    layout: dict[str, Module]
    parameters: dict[str, Module]
    rotations: dict[str, Rotation]

    @property
    def lora(self) -> LoraConfig:
        """The config of a LoRA adapter. Only `fuse` and `show` open any other (`open_adapter`)."""
        if isinstance(self.config, LoraConfig):
            return self.config
        raise TypeError(f"{self.folder} is not a LoRA adapter")

    @property
    def oft(self) -> OftConfig:
        """The config of an OFT adapter."""
        if isinstance(self.config, OftConfig):
            return self.config
        raise TypeError(f"{self.folder} is not an OFT adapter")

    @property
    def name(self) -> str:
        """The folder's name; for a checkpoint the run's name comes first (`name_of`)."""
        return name_of(self.folder)

    @property
    def modules(self) -> Mapping[str, Module | Rotation]:
        """The adapted modules by path, of either kind."""
        return self.layout or self.rotations

    @property
    def paths(self) -> list[str]:
        """Paths of all factors and rotations: modules, then wrappers of bare parameters."""
        return [*self.modules, *self.parameters]

    @property
    def full_tensors(self) -> list[str]:
        """Names of tensors saved in full (`modules_to_save`, biases, base copies), e.g. `lm_head.weight`."""
        return saved_in_full(self.weights, self.config.raw)

    @property
    def needs_base(self) -> bool:
        """True if ΔW also needs the base's weights: OFT, DoRA, bare parameters."""
        return bool(self.rotations or self.parameters) or self.lora.dora

    def factors(self, module: str) -> tuple[Array, Array]:
        """A [rank, inputs] and B [outputs, rank] as fp32, unscaled; NaN is a `ContentError`."""
        down, up = self._keys(module)
        return self.weights.read(down), self.weights.read(up)

    def magnitude(self, module: str) -> Array:
        """DoRA's m [outputs] as fp32: the target norm of each row of W + s·B·A."""
        return self.weights.read(f"{PREFIX}{module}{MAGNITUDE}")

    def triangles(self, module: str) -> Array:
        """OFT's upper triangles [blocks, size·(size − 1)/2] of a module's skew matrices, as fp32."""
        return self.weights.read(f"{PREFIX}{module}{ROTATION}")

    def require_finite(self) -> None:
        """Read every tensor; `ContentError` for the first with NaN or infinity, as in `merge`."""
        for name in self.weights.tensors:
            self.weights.read(name)

    @property
    def word(self) -> str:
        """The folder as a word of a command, which would read one that begins with a dash as an option."""
        text = str(self.folder)
        return f"./{text}" if text.startswith("-") else text

    def fuse_command(self, base: str) -> str:
        """The command that adds the adapter to its base, for the message of a format that cannot hold it."""
        words = ["tuneyard", "adapter", "fuse", self.word, "--base", base]
        return shlex.join([*words, "--out", f"models/{self.name}"])

    def full_tensor(self, name: str) -> Array:
        """One of `full_tensors` as fp32."""
        return self.weights.read(PREFIX + name)

    def transposed(self, module: str) -> bool:
        """True if the stored weight changes by (B·A)ᵀ: embeddings, Conv1D layers (fan_in_fan_out)."""
        return self.layout[module].transposed(self.config.fan_in_fan_out)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of the weights file and of the config, as hex."""
        parts = self.weights_sha256 + sha256(self.folder / CONFIG)
        return hashlib.sha256(parts.encode()).hexdigest()

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file (of the hashes of several, one after another), as hex."""
        hashes = [sha256(file) for file in self.files]
        if len(hashes) == 1:
            return hashes[0]
        return hashlib.sha256("".join(hashes).encode()).hexdigest()

    @property
    def files(self) -> list[Path]:
        """The weights file, or all of several."""
        return sorted({tensor.file for tensor in self.weights.tensors.values()})

    def _keys(self, module: str) -> tuple[str, str]:
        factors = self.layout.get(module) or self.parameters[module]
        down, up = PAIRS[factors.kind]
        return f"{PREFIX}{module}{down}", f"{PREFIX}{module}{up}"


def note(text: str) -> None:
    """Print a note on stderr; the command continues."""
    click.echo(f"note: {text}", err=True)


def open_adapter(reference: str | Path, *, with_base: bool = False) -> Adapter:
    """Open an adapter by its reference (`find_folder`) and check that config and weights match.

    `with_base` accepts OFT, DoRA and `target_parameters`, whose ΔW also needs the base's weights.
    `RequestError` if there is no adapter, `ContentError` if it is damaged or not supported. Tensor values are
    checked when they are read.
    """
    folder = find_folder(reference)
    config = read_config(folder, with_base=with_base)
    weights = open_adapter_weights(folder)
    require_text("\n".join(weights.tensors), weights.path)
    layout: dict[str, Module] = {}
    parameters: dict[str, Module] = {}
    rotations: dict[str, Rotation] = {}
    with config.bounded():
        if isinstance(config, OftConfig):
            rotations.update(sorted(rotated_modules(weights), key=_layer_order))
        else:
            for path, module in sorted(adapted_modules(weights), key=_layer_order):
                if config.parameters_of(unwrapped(path)) and not config.targets(path):
                    parameters[path] = module
                else:
                    layout[path] = module
        adapter = Adapter(folder, config, weights, layout, parameters, rotations)
        for mismatch in _mismatches(adapter):
            raise ContentError(f"{weights.path}: {mismatch}")
    return adapter


def unwrapped(path: str) -> str:
    """Remove the wrappers of bare parameters from a path: `mlp.experts.base_layer` → `mlp.experts`."""
    while path.endswith(WRAPPED):
        path = path.removesuffix(WRAPPED)
    return path


def factors_by_expert(a: Factor, b: Factor, experts: int) -> Iterator[tuple[Factor, Factor]]:
    """Split a bare parameter's factors into A [r, inputs] and B [outputs, r] of each expert.

    A has the experts one after another, B has them interleaved (PEFT's ParamWrapper.get_delta_weight).
    """
    downs = a.reshape(experts, -1, a.shape[1])
    ups = b.reshape(b.shape[0], -1, experts)
    for expert in range(experts):
        yield downs[expert], ups[:, :, expert]


def find_folder(reference: str | Path) -> Path:
    """Find the folder of an adapter by the rule that all commands share.

    A text with a slash, and every `Path`, is a path. A bare name is saves/NAME, or the folder NAME here if
    there is none. A note names the folder that is used if both exist.
    """
    text, path = str(reference), Path(reference)
    if text.encode(errors="ignore") != os.fsencode(reference):
        raise RequestError(f"adapter {text!r}: its name is not UTF-8, as in README.md: rename it")
    candidates = [path]
    if isinstance(reference, str) and "/" not in reference and reference not in (".", ".."):
        candidates = [SAVES / path, path]
    folders = [folder for folder in candidates if folder.is_dir()]
    if len(folders) > 1:
        note(f"{text} means {SAVES}/{text}; for the folder {text} here, write ./{text}")
    if folders:
        return folders[0]
    saved = sorted(config.parent.name for config in SAVES.glob(f"*/{CONFIG}"))
    listing = f"{SAVES}/ is empty"
    if saved:
        listing = f"under {SAVES}/: {', '.join(saved)}"
    hint = nearest(text, saved)
    raise RequestError(f"adapter {text!r}: no such folder ({listing}) {hint}".rstrip())


def name_of(folder: Path) -> str:
    """Name of an adapter's folder; for a checkpoint the run's name comes first: `rte-checkpoint-100`."""
    folder = folder.resolve()
    if folder.name.startswith("checkpoint-"):
        return f"{folder.parent.name}-{folder.name}"
    return folder.name


def _layer_order(module: tuple[str, object]) -> list[str]:
    """Sort key by which layer 2 comes before layer 10."""
    path, _ = module
    return [part.zfill(8) if part.isdigit() else part for part in path.split(".")]


def _mismatches(adapter: Adapter) -> Iterator[str]:
    """Yield every tensor that the config does not explain, and every tensor that it expects in vain."""
    config, full_tensors = adapter.config, adapter.full_tensors
    if isinstance(config, LoraConfig):
        yield from _factor_mismatches(adapter, config)
    for path in adapter.modules:
        if not config.targets(path):
            yield f"{path}: is adapted, but {CONFIG} does not target it"
    for path, rotation in adapter.rotations.items():
        if adapter.oft.shared and rotation.blocks > 1:
            yield f"{path}: {rotation.blocks} blocks, but {CONFIG} sets block_share: expected 1"
    for name in full_tensors:
        parent = name.rpartition(".")[0]
        copy_of_base = (
            parent.endswith(".base_layer") and parent.removesuffix(".base_layer") in adapter.modules
        )
        if PREFIX + name not in adapter.weights.tensors:
            yield f"{name}: expected names that begin with {PREFIX!r}"
        if not (copy_of_base or config.saves_in_full(name)):
            yield f"{name}: {CONFIG} does not explain this tensor"
    if not adapter.paths:
        weights = "LoRA factors" if isinstance(config, LoraConfig) else "OFT rotations"
        yield f"no {weights} in it"
    targets = config.raw.get("target_modules")
    if isinstance(targets, list):
        for target in targets:
            is_adapted = any(path == target or path.endswith(f".{target}") for path in adapter.modules)
            if not is_adapted and not config.may_exclude(target):
                yield f"{CONFIG} targets {target!r}, but no such tensor is in the file"
    for kept in config.modules_to_save:
        if not any(name.rpartition(".")[0].endswith(kept) for name in full_tensors):
            yield f"modules_to_save names {kept!r}, but no such tensor is in the file"
    if config.bias == "lora_only" and not any(name.endswith(".bias") for name in full_tensors):
        yield (
            "bias 'lora_only', but no bias was saved (PEFT never writes those of lora_only): its training "
            "cannot be reproduced"
        )


def _factor_mismatches(adapter: Adapter, lora: LoraConfig) -> Iterator[str]:
    """Yield factors and magnitudes whose shape is not the config's."""
    for path, factors in adapter.parameters.items():
        if factors.rank % lora.rank:
            expected = f"expected a multiple of {lora.rank}, the rank that {CONFIG} gives each expert"
            yield f"{path}: rank {factors.rank}, {expected}"
    for path, module in adapter.layout.items():
        if lora.dora:
            name = f"{PREFIX}{path}{MAGNITUDE}"
            magnitude = adapter.weights.tensors.get(name)
            if magnitude is None:
                yield f"{path}: {MAGNITUDE.removeprefix('.')} is missing, but {CONFIG} sets use_dora"
            elif magnitude.shape != (module.outputs,):
                yield f"{name}: shape {list(magnitude.shape)}, expected [{module.outputs}]"
        if lora.targets(path) and module.rank != lora.rank_of(path):
            yield f"{path}: rank {module.rank}, but {CONFIG} gives it {lora.rank_of(path)}"
        lora.scale_of(path)  # matches alpha_pattern too, here where its time is limited
