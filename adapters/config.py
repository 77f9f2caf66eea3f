"""Read adapter_config.json: targets, ranks and scales of LoRA, rotations of OFT. Other kinds are refused.

PEFT ignores nearly every field below in one place or another. Here each field is used or stops the command.
Meanings as in PEFT's LoraConfig and OFTConfig.
"""

import json
import math
import os
import re
import sys
from collections.abc import Iterator, Set
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.execution.time_limit import bounded
from tuneyard.core.files import read_object
from tuneyard.core.weights.adapter_files import CONFIG
from tuneyard.core.weights.base_models import EMBEDDINGS, HEADS

LARGEST = sys.float_info.max  # JSON has whole numbers beyond it
# Starts that leave the base model as it was (BA = 0, or the usual zero B).
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
CONVERTED = ("pissa", "olora", "corda")  # from a changed base, and PEFT can subtract the start again
CHANGED_STARTS = (*CONVERTED, "loftq", "lora_ga")
CONVERT_WITH_PEFT = (
    "save it again with PEFT's save_pretrained(DIR, path_initial_model_for_weight_conversion=INITIAL)"
)
PISSA_CONVERTED = "pissa_converted"  # the folder in output_dir that pissa_convert writes
# pissa_convert leaves these next to the converted adapter, marked as if they began from the published base.
PISSA_LEFTOVERS = ("pissa_init", "pissa_backup")
KNOWN = {
    "alpha_pattern", "bias", "exclude_modules", "fan_in_fan_out", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "modules_to_save", "r", "rank_pattern", "target_modules",
    "use_rslora",
    # no influence on ΔW = s·B·A once an adapter is trained
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
    "inference_mode", "loftq_config", "lora_dropout", "megatron_core", "modelcard", "peft_type",
    "peft_version", "qalora_group_size", "revision", "runtime_config", "task_type",
}  # fmt: skip
REFUSED = {
    "alora_invocation_tokens": "aLoRA acts only after its invocation tokens",
    "arrow_config": "an Arrow router chooses between adapters at run time",
    "layer_replication": "the adapter belongs to a base with replicated layers",
    "lora_bias": "the adapter adds a bias next to B·A",
    "megatron_config": "Megatron's sharded layers are not supported",
    "trainable_token_indices": "it replaces single rows of the embedding",
    "use_qalora": "QA-LoRA pools its inputs",
}

# ΔW follows from the factors and the base's weights together: `fuse` has both, merging has not.
NEEDS_BASE = {
    "target_parameters": "it changes bare parameters (experts), not modules",
    "use_dora": "DoRA rescales the base weights, so its change is not a sum of B·A",
}
HOW_TO_FUSE = "fuse it into its base, which is exact: `tuneyard adapter fuse NAME --base DIR --out DIR`"
OFT_KNOWN = {
    "bias", "block_share", "coft", "eps", "exclude_modules", "layers_pattern", "layers_to_transform",
    "modules_to_save", "num_cayley_neumann_terms", "oft_block_size", "r", "target_modules",
    "use_cayley_neumann",
    # no influence on the rotation once an adapter is trained
    "auto_mapping", "base_model_name_or_path", "inference_mode", "init_weights", "module_dropout",
    "peft_type", "peft_version", "revision", "task_type",
}  # fmt: skip
NEUMANN_SINCE = (0, 18)  # PEFT's version that gave the series of Cayley-Neumann its present terms
# Fields that PEFT also accepts as one text (a regular expression), and fields that must be lists.
TEXT_OR_LIST = ("target_modules", "exclude_modules", "layers_pattern")
LISTS = ("modules_to_save", "target_parameters")
SWITCHES = ("use_rslora", "fan_in_fan_out", "use_dora", "coft", "block_share")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """Fields of a checked adapter_config.json that LoRA and OFT share. `raw` has all fields of the file."""

    path: Path
    raw: dict[str, Any]

    @property
    def base(self) -> str | None:
        """Name of the base model, None if the file has none."""
        name: str | None = self.raw.get("base_model_name_or_path") or None
        return name

    @property
    def bias(self) -> str:
        """The biases that were trained: none, all or lora_only."""
        bias: str = self.raw.get("bias", "none")
        return bias

    @property
    def fan_in_fan_out(self) -> bool:
        """True if the base stores the transposed weights (Conv1D)."""
        return bool(self.raw.get("fan_in_fan_out"))

    @property
    def modules_to_save(self) -> tuple[str, ...]:
        """Names of the modules that were trained in full."""
        return tuple(self.raw.get("modules_to_save") or ())

    def targets(self, module: str) -> bool:
        """True if PEFT would adapt a module: targets, exclusions, layers."""
        targets = self.raw.get("target_modules")
        excluded = self.raw.get("exclude_modules")
        if excluded and _names(excluded, module):
            return False
        for name in self.modules_to_save:
            if re.match(rf"(^|.*\.){re.escape(name)}($|\..*)", module):
                return False
        if targets == "all-linear":
            return True
        if isinstance(targets, list) and module in targets:
            return True
        if not _names(targets, module):
            return False
        return isinstance(targets, str) or self._in_layers(module)

    def saves_in_full(self, name: str) -> bool:
        """True if the config explains a full tensor: in modules_to_save, a bias, embedding or head."""
        module, _, leaf = name.rpartition(".")
        if leaf == "bias" and self.bias != "none":
            return self.bias == "all" or self.targets(module.removesuffix(".base_layer"))
        if name.endswith((*EMBEDDINGS, *HEADS)):  # save_embedding_layers, which no field records
            return True
        return module.endswith(self.modules_to_save)

    def may_exclude(self, target: str) -> bool:
        """True if `exclude_modules` may leave out every module with this name of target_modules."""
        excluded = self.raw.get("exclude_modules") or []
        if isinstance(excluded, str):  # a regular expression on whole paths, which only the base has
            return True
        return any(_ends_with(target, name) or _ends_with(name, target) for name in excluded)

    def bounded(self) -> AbstractContextManager[None]:
        """Limit the time of a block that matches the config's regular expressions (`ContentError`)."""
        return bounded(f"{self.path}: its regular expressions (target_modules and the like)")

    def _in_layers(self, module: str) -> bool:
        layers = self.raw.get("layers_to_transform")
        if layers in (None, []):
            return True
        for pattern in _as_list(self.raw.get("layers_pattern") or r"[^.]*"):
            match = re.match(rf".*\.{pattern}\.(\d+)\.", module)
            if match:
                return int(match[1]) in _as_list(layers)
        return False


@dataclass(frozen=True, slots=True)
class LoraConfig(AdapterConfig):
    """The config of a LoRA adapter, with or without DoRA."""

    rank: int
    alpha: float
    ranks: dict[str, int]
    alphas: dict[str, float]

    @property
    def dora(self) -> bool:
        """True if DoRA rescales the rows of the base weights."""
        return bool(self.raw.get("use_dora"))

    @property
    def target_parameters(self) -> tuple[str, ...]:
        """Names of the adapted bare parameters (experts)."""
        return tuple(self.raw.get("target_parameters") or ())

    def rank_of(self, module: str) -> int:
        """Rank of a module, `rank_pattern` respected."""
        return self.ranks.get(_pattern(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """Scale s = α/r (α/√r for rsLoRA) of a module, both patterns respected."""
        alpha = self.alphas.get(_pattern(self.alphas, module), self.alpha)
        rank = self.rank_of(module)
        if self.raw.get("use_rslora"):
            return alpha / math.sqrt(rank)
        return alpha / rank

    def parameters_of(self, module: str) -> list[str]:
        """Names of the bare parameters of a module that `target_parameters` adapts, e.g. `gate_up_proj`.

        PEFT compares the end of the parameter's whole path with each target.
        """
        parameters = []
        for target in self.target_parameters:
            parent, _, parameter = target.rpartition(".")
            if not parent or _ends_with(module, parent):
                parameters.append(parameter)
        return list(dict.fromkeys(parameters))


@dataclass(frozen=True, slots=True)
class OftConfig(AdapterConfig):
    """The config of an OFT adapter. `terms` counts the terms of Cayley-Neumann; 0: Cayley's exact form.

    `largest_skew` limits the norm of the skew matrices in constrained OFT (`coft`), before it is divided by
    the root of the number of blocks. It is None without `coft`.
    """

    blocks: int
    block_size: int
    shared: bool
    terms: int
    largest_skew: float | None

    def size_of(self, inputs: int) -> int:
        """Size of the blocks for a weight with this many inputs.

        PEFT takes the divisor of `inputs` that is nearest to the size, or to the number of blocks.
        """
        if self.block_size:
            return _nearest_divisor(inputs, self.block_size)
        return inputs // _nearest_divisor(inputs, self.blocks)


def _nearest_divisor(inputs: int, number: int) -> int:
    """The divisor of `inputs` that is nearest to `number`, the smaller of two."""
    if number >= inputs:
        return inputs
    distance = 0
    while True:
        for divisor in (number - distance, number + distance):
            if divisor > 0 and inputs % divisor == 0:
                return divisor
        distance += 1


def _as_list(value: object) -> list[Any]:
    if isinstance(value, list):
        return value
    return [value]


def _ends_with(path: str, name: str) -> bool:
    """True if the last parts of a module path are `name`: `a.b.q_proj` ends with `b.q_proj`."""
    return path == name or path.endswith(f".{name}")


def _pattern(patterns: dict[str, int] | dict[str, float], module: str) -> str:
    """The first key that matches the module's end, as in PEFT's get_pattern_key; the module if none does."""
    for key in patterns:
        if re.match(rf"(.*\.)?({key})$", module):
            return key
    return module


def _names(names: object, module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    if isinstance(names, list):
        return any(_ends_with(module, name) for name in names)
    return False


def read_config(folder: Path, *, with_base: bool) -> LoraConfig | OftConfig:
    """Read and check adapter_config.json; `ContentError` names the field that is not supported.

    `with_base` accepts adapters whose ΔW also needs the base's weights (`NEEDS_BASE`, OFT).
    """
    path = folder / CONFIG
    if not path.is_file():
        raise RequestError(f"{folder}: not an adapter: {CONFIG} is missing{checkpoints_in(folder)}")
    raw: dict[str, Any] = read_object(path)
    require_text(json.dumps(raw, ensure_ascii=False), path)
    if folder.resolve().name in PISSA_LEFTOVERS and raw.get("init_lora_weights", True) in PLAIN_STARTS:
        raise ContentError(
            f"{folder}: LLaMA-Factory keeps this of a PiSSA run. Its B·A is the change from PiSSA's "
            f"changed base; {how_to_convert(folder)}"
        )
    try:
        if raw.get("peft_type") == "OFT":
            return _oft_config(path, raw, with_base=with_base)
        return _lora_config(path, raw, with_base=with_base)
    except ContentError as error:
        raise ContentError(f"{path}: {error}") from error


def _lora_config(path: Path, raw: dict[str, Any], *, with_base: bool) -> LoraConfig:
    for problem in _problems(raw, path.parent, with_base=with_base):
        raise ContentError(problem)
    ranks = {}
    for pattern, rank in _map(raw, "rank_pattern").items():
        ranks[pattern] = positive_int(rank, f"rank_pattern {pattern}")
    alphas = {}
    for pattern, alpha in _map(raw, "alpha_pattern").items():
        alphas[pattern] = positive(alpha, f"alpha_pattern {pattern}")
    return LoraConfig(
        path,
        raw,
        rank=positive_int(raw.get("r"), "r"),
        alpha=positive(raw.get("lora_alpha"), "lora_alpha"),
        ranks=ranks,
        alphas=alphas,
    )


def _oft_config(path: Path, raw: dict[str, Any], *, with_base: bool) -> OftConfig:
    for problem in _oft_problems(raw, with_base=with_base):
        raise ContentError(problem)
    terms = 0
    if raw["use_cayley_neumann"]:
        terms = positive_int(raw.get("num_cayley_neumann_terms"), "num_cayley_neumann_terms")
    largest_skew = None
    if raw.get("coft"):
        largest_skew = positive(raw.get("eps"), "eps")
    blocks, block_size = raw.get("r"), raw["oft_block_size"]
    if not block_size:
        blocks = positive_int(blocks, "r")
    elif blocks:
        raise ContentError(f"r {show_value(blocks)} and oft_block_size {block_size}: expected one of them")
    else:
        block_size = positive_int(block_size, "oft_block_size")
    return OftConfig(
        path,
        raw,
        blocks=blocks or 0,
        block_size=block_size or 0,
        shared=bool(raw.get("block_share")),
        terms=terms,
        largest_skew=largest_skew,
    )


def how_to_convert(folder: Path) -> str:
    """What to use instead of an adapter that began as PiSSA.

    With `pissa_convert` LLaMA-Factory converts the end of a training, in its output_dir.
    """
    name = folder.resolve().name
    output_dir = folder
    if name.startswith("checkpoint-") or name in PISSA_LEFTOVERS:
        output_dir = Path(os.path.normpath(folder / ".."))
    converted = output_dir / PISSA_CONVERTED
    if not (converted / CONFIG).is_file():
        return (
            "train again with pissa_convert: true in the recipe and use the plain LoRA in "
            f"OUTPUT_DIR/{PISSA_CONVERTED}; for an adapter that PEFT trained: {CONVERT_WITH_PEFT}"
        )
    if name.startswith("checkpoint-"):
        return f"LLaMA-Factory converted only the end of this training: use {converted}, a plain LoRA"
    return f"use {converted} instead, the plain LoRA that LLaMA-Factory converted it to"


def require_text(text: str, path: Path) -> None:
    """Refuse half of a surrogate pair, which JSON can contain and no file name or card can."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        character = show_value(text[error.start])
        raise ContentError(f"{path}: it contains {character}, half of a character") from error


def checkpoints_in(folder: Path) -> str:
    """Hint at the checkpoints in a folder that is not an adapter itself, or ""."""
    checkpoints = sorted(path.parent.name for path in folder.glob(f"checkpoint-*/{CONFIG}"))
    if not checkpoints:
        return ""
    return f" (but it contains {', '.join(checkpoints)})"


def _problems(raw: dict[str, Any], folder: Path, *, with_base: bool) -> Iterator[str]:
    """Yield why ΔW is not s·B·A, and every value that its field cannot have."""
    kind = raw.get("peft_type")
    if kind != "LORA":
        yield f"peft_type {show_value(kind)}: only LoRA and OFT adapters are supported"
    start = raw.get("init_lora_weights", True)
    if isinstance(start, str) and start.lower().startswith(CHANGED_STARTS):
        fix = "no conversion is known: serve it on the base saved with it"
        if start.lower().startswith("pissa"):
            fix = how_to_convert(folder)
        elif start.lower().startswith(CONVERTED):
            fix = f"convert it: {CONVERT_WITH_PEFT}"
        yield (
            f"init_lora_weights {show_value(start)}: training began from a changed base, so B·A is not the "
            f"change from the published one; {fix}"
        )
    if start not in PLAIN_STARTS:
        yield f"init_lora_weights {show_value(start)}: an unknown start"
    for field, why in REFUSED.items():
        if raw.get(field):
            yield f"{field} {show_value(raw[field])}: {why}"
    for field, why in NEEDS_BASE.items():
        if raw.get(field) and not with_base:
            yield f"{field} {show_value(raw[field])}: {why}; {HOW_TO_FUSE}"
    if raw.get("target_parameters") and (raw.get("rank_pattern") or raw.get("alpha_pattern")):
        yield "target_parameters with rank_pattern or alpha_pattern: the ranks of the experts are unknown"
    yield from _unknown_fields(raw, KNOWN | REFUSED.keys() | NEEDS_BASE.keys())
    yield from _wrong_types(raw)
    if raw.get("bias", "none") not in ("none", "all", "lora_only"):
        yield f"bias {show_value(raw['bias'])}: expected none, all or lora_only"


def _oft_problems(raw: dict[str, Any], *, with_base: bool) -> Iterator[str]:
    """Yield why the trained rotations are unknown, and every value that its field cannot have."""
    if not with_base:
        yield (
            'peft_type "OFT": OFT multiplies the base weights by a rotation, so its change is not a sum of '
            f"B·A; {HOW_TO_FUSE}; to merge adapters, train LoRA"
        )
    if "oft_block_size" not in raw:
        yield "no oft_block_size: PEFT before 0.14 wrote it, with other rotations; train again"
    yield from _unknown_fields(raw, OFT_KNOWN)
    yield from _wrong_types(raw)
    if not isinstance(raw.get("use_cayley_neumann"), bool):
        value = show_value(raw.get("use_cayley_neumann"))
        yield f"use_cayley_neumann {value}: expected true or false; which rotation was trained is unknown"
    version = re.match(r"(\d+)\.(\d+)", str(raw.get("peft_version") or "0.0"))
    if raw.get("use_cayley_neumann") and (
        version is None or tuple(map(int, version.groups())) < NEUMANN_SINCE
    ):
        yield (
            f"use_cayley_neumann with peft_version {show_value(raw.get('peft_version'))}: PEFT 0.18 changed "
            "the series, so this rotation is another one there; train again with PEFT 0.18 or later"
        )
    if raw.get("bias", "none") != "none":
        yield (
            f"bias {show_value(raw['bias'])}: PEFT trains biases with OFT and never writes them, so that the "
            "training cannot be reproduced"
        )


def _unknown_fields(raw: dict[str, Any], explained: Set[str]) -> Iterator[str]:
    unknown = [key for key, value in raw.items() if value and key not in explained]
    if unknown:
        yield f"{', '.join(unknown)}: unknown fields, which may change the meaning of the weights"


def _wrong_types(raw: dict[str, Any]) -> Iterator[str]:
    """Yield every field whose value has a type or form that PEFT does not read."""
    for field in (*TEXT_OR_LIST, *LISTS):
        value = raw.get(field)
        is_list = isinstance(value, list) and all(isinstance(item, str) for item in value)
        is_text = isinstance(value, str) and field in TEXT_OR_LIST
        if value is not None and not is_list and not is_text:
            yield f"{field} {show_value(value)}: expected a list of module names"
    for field, pattern in _patterns(raw):
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"{field} {show_value(pattern)}: not a regular expression: {error}"
    for field in SWITCHES:
        if raw.get(field) not in (True, False, None):
            yield f"{field} {show_value(raw[field])}: expected true or false"
    base = raw.get("base_model_name_or_path")
    if not isinstance(base, str | None):
        yield f"base_model_name_or_path {show_value(base)}: expected a name"


def _patterns(raw: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every regular expression in a config, with its field."""
    for field in ("target_modules", "exclude_modules"):
        if isinstance(raw.get(field), str):
            yield field, raw[field]
    for field in ("rank_pattern", "alpha_pattern"):
        for key in _map(raw, field):
            yield field, f"(.*\\.)?({key})$"
    for name in _as_list(raw.get("layers_pattern") or []):
        yield "layers_pattern", rf".*\.{name}\.(\d+)\."


def _map(raw: dict[str, Any], field: str) -> dict[str, Any]:
    value = raw.get(field) or {}
    if not isinstance(value, dict):
        raise ContentError(f"{field} {show_value(value)}: expected a map of module patterns")
    return value


def positive_int(value: object, where: str) -> int:
    """Check a whole number above 0. The `ContentError` for any other value opens with `where`."""
    if type(value) is not int or value < 1:
        raise ContentError(f"{where} {show_value(value)}: expected a whole number above 0")
    return value


def positive(value: object, where: str, largest: float = LARGEST) -> float:
    """Check a finite number above 0. The `ContentError` for any other value opens with `where`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= largest:
        raise ContentError(f"{where} {show_value(value)}: expected a finite number above 0")
    return float(value)
