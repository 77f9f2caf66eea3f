"""What an adapter's config says: ranks, scales and targets, and a refusal by name of what is no plain LoRA.

PEFT ignores nearly every field below in one place or another; here each is taken into account or stops the
command. Meanings as in PEFT's LoraConfig.
"""

import json
import math
import re
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.adapters.base import EMBEDDINGS, HEADS
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import read_object
from tuneyard.core.time_limit import bounded

CONFIG = "adapter_config.json"
LARGEST = sys.float_info.max  # JSON has whole numbers beyond it
# Starts that leave the base model as it was (BA = 0, or the usual zero B).
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
CONVERTED = ("pissa", "olora", "corda")  # from a changed base, and PEFT can subtract the start again
CHANGED_STARTS = (*CONVERTED, "loftq", "lora_ga")
HOW_TO_CONVERT = (
    "convert it: train with LLaMA-Factory's pissa_convert: true and take OUTPUT_DIR/pissa_converted, or save "
    "it with PEFT's save_pretrained(DIR, path_initial_model_for_weight_conversion=INITIAL)"
)
# What pissa_convert leaves beside the converted adapter, marked as if it began from the published base.
PISSA_LEFTOVERS = ("pissa_init", "pissa_backup")
KNOWN = {
    "alpha_pattern", "bias", "exclude_modules", "fan_in_fan_out", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "modules_to_save", "r", "rank_pattern", "target_modules",
    "use_rslora",
    # of no bearing on ΔW = s·B·A once an adapter is trained
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
    "inference_mode", "loftq_config", "lora_dropout", "megatron_core", "modelcard", "peft_type",
    "peft_version", "qalora_group_size", "revision", "runtime_config", "task_type",
}  # fmt: skip
REFUSED = {
    "alora_invocation_tokens": "aLoRA acts only after its invocation tokens",
    "arrow_config": "an Arrow router chooses between adapters at run time",
    "layer_replication": "the adapter belongs to a base with replicated layers",
    "lora_bias": "the adapter adds a bias of its own beside B·A",
    "megatron_config": "Megatron's sharded layers are not read",
    "trainable_token_indices": "it replaces single rows of the embedding",
    "use_qalora": "QA-LoRA pools its inputs",
}

# ΔW follows from the factors and the base's weights together: `fuse` has both, merging has not.
NEEDS_BASE = {
    "target_parameters": "it changes bare parameters (experts), not modules",
    "use_dora": "DoRA rescales the base weights, so its change is no sum of B·A",
}
HOW_TO_FUSE = "fuse it into its base, which is exact: `tuneyard adapter fuse NAME --base DIR --out DIR`"


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """A checked adapter_config.json: `raw` as it is in the file, the rest with its meaning."""

    path: Path
    raw: dict[str, Any]
    rank: int
    alpha: float
    ranks: dict[str, int]
    alphas: dict[str, float]
    rslora: bool
    fan_in_fan_out: bool
    base: str | None
    bias: str
    modules_to_save: tuple[str, ...]
    dora: bool = False
    target_parameters: tuple[str, ...] = ()

    def rank_of(self, module: str) -> int:
        """Return the rank that the config gives a module, `rank_pattern` respected."""
        return self.ranks.get(_pattern(self.ranks, module), self.rank)

    def scale_of(self, module: str) -> float:
        """Return s = α/r (α/√r for rsLoRA) of a module, both patterns respected."""
        alpha = self.alphas.get(_pattern(self.alphas, module), self.alpha)
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.rslora else rank)

    def targets(self, module: str) -> bool:
        """Return whether PEFT would give a module LoRA factors: targets, exclusions, layers."""
        wanted, excluded = self.raw.get("target_modules"), self.raw.get("exclude_modules")
        if excluded and _names(excluded, module):
            return False
        if any(re.match(rf"(^|.*\.){re.escape(name)}($|\..*)", module) for name in self.modules_to_save):
            return False
        if wanted == "all-linear" or (isinstance(wanted, list) and module in wanted):
            return True
        return _names(wanted, module) and (isinstance(wanted, str) or self._in_layers(module))

    def parameters_of(self, module: str) -> list[str]:
        """Names of the bare parameters of a module that `target_parameters` adapts, e.g. `gate_up_proj`.

        PEFT compares the end of the parameter's whole path with each target.
        """
        parameters = []
        for target in self.target_parameters:
            parent, _, parameter = target.rpartition(".")
            if not parent or module == parent or module.endswith(f".{parent}"):
                parameters.append(parameter)
        return list(dict.fromkeys(parameters))

    def saves_in_full(self, name: str) -> bool:
        """Return whether the config explains a full tensor: in modules_to_save, a bias, embedding or head."""
        module, _, leaf = name.rpartition(".")
        if leaf == "bias" and self.bias != "none":
            return self.bias == "all" or self.targets(module.removesuffix(".base_layer"))
        if name.endswith((*EMBEDDINGS, *HEADS)):  # save_embedding_layers, which no field tells
            return True
        return any(module.endswith(kept) for kept in self.modules_to_save)

    def may_exclude(self, target: str) -> bool:
        """Return whether `exclude_modules` may leave nothing of a name in target_modules."""
        excluded = self.raw.get("exclude_modules") or []
        if isinstance(excluded, str):  # of whole paths, which only the base has
            return True
        one = f".{target}"
        return any(one.endswith(f".{name}") or f".{name}".endswith(one) for name in excluded)

    def bounded(self) -> AbstractContextManager[None]:
        """Bound the time of a block that matches the config's regular expressions; `ContentError` beyond."""
        return bounded(f"{self.path}: its regular expressions (target_modules and the like)")

    def _in_layers(self, module: str) -> bool:
        layers = self.raw.get("layers_to_transform")
        if layers in (None, []):
            return True
        patterns = self.raw.get("layers_pattern") or r"[^.]*"
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            if found := re.match(rf".*\.{pattern}\.(\d+)\.", module):
                return int(found.group(1)) in (layers if isinstance(layers, list) else [layers])
        return False


def _pattern(patterns: dict[str, int] | dict[str, float], module: str) -> str:
    """Return the first key that fits the module's end, as PEFT's get_pattern_key does."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), module)


def _names(names: object, module: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    return isinstance(names, list) and any(module == n or module.endswith(f".{n}") for n in names)


def read_config(folder: Path, *, with_base: bool) -> LoraConfig:
    """Read and check adapter_config.json; `ContentError` names the field that cannot be taken rightly.

    `with_base` accepts adapters whose ΔW also needs the base's weights (`NEEDS_BASE`).
    """
    path = folder / CONFIG
    if not path.is_file():
        raise RequestError(f"{folder}: no adapter: it has no {CONFIG}{checkpoints_in(folder)}")
    raw: dict[str, Any] = read_object(path)
    require_text(json.dumps(raw, ensure_ascii=False), path)
    if folder.resolve().name in PISSA_LEFTOVERS and raw.get("init_lora_weights", True) in PLAIN_STARTS:
        raise ContentError(
            f"{folder}: what LLaMA-Factory keeps of a PiSSA run, whose B·A is the change from PiSSA's "
            "own base; take pissa_converted beside it"
        )
    try:
        for reason in _refusals(raw, with_base=with_base):
            raise ContentError(reason)
        return LoraConfig(
            path, raw, positive_int(raw.get("r"), "r"),
            alpha=positive(raw.get("lora_alpha"), "lora_alpha"),
            ranks={k: positive_int(v, f"rank_pattern {k}") for k, v in _map(raw, "rank_pattern").items()},
            alphas={k: positive(v, f"alpha_pattern {k}") for k, v in _map(raw, "alpha_pattern").items()},
            rslora=bool(raw.get("use_rslora")),
            fan_in_fan_out=bool(raw.get("fan_in_fan_out")),
            base=raw.get("base_model_name_or_path") or None,
            bias=raw.get("bias", "none"),
            modules_to_save=tuple(raw.get("modules_to_save") or ()),
            dora=bool(raw.get("use_dora")),
            target_parameters=tuple(raw.get("target_parameters") or ()),
        )  # fmt: skip
    except ContentError as error:
        raise ContentError(f"{path}: {error}") from error


def require_text(text: str, path: Path) -> None:
    """Refuse what JSON can name and no file can hold: half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = show_value(text[error.start])
        raise ContentError(f"{path}: {found} in it: half of a character, which no file can hold") from error


def checkpoints_in(folder: Path) -> str:
    """Return what to say of a folder that has no adapter but checkpoints in it, "" without any."""
    found = sorted(p.parent.name for p in folder.glob(f"checkpoint-*/{CONFIG}"))
    return f" (but {', '.join(found)} in it)" if found else ""


def _refusals(raw: dict[str, Any], *, with_base: bool) -> Iterator[str]:
    """Yield what forbids to take an adapter as ΔW = s·B·A, or is no value of its field."""
    kind, start = raw.get("peft_type"), raw.get("init_lora_weights", True)
    if kind != "LORA":
        yield f"peft_type {show_value(kind)}: only LORA adapters can be taken"
    if isinstance(start, str) and start.lower().startswith(CHANGED_STARTS):
        able = start.lower().startswith(CONVERTED)
        yield (
            f"init_lora_weights {show_value(start)}: training began from a changed base, so B·A is not the "
            "change from the published one; "
            + (HOW_TO_CONVERT if able else "no conversion is known: serve it on the base saved with it")
        )
    if start not in PLAIN_STARTS:
        yield f"init_lora_weights {show_value(start)}: an unknown start"
    yield from (
        f"{field} {show_value(raw[field])}: {why}" for field, why in REFUSED.items() if raw.get(field)
    )
    if not with_base:
        for field, why in NEEDS_BASE.items():
            if raw.get(field):
                yield f"{field} {show_value(raw[field])}: {why}; {HOW_TO_FUSE}"
    if raw.get("target_parameters") and (raw.get("rank_pattern") or raw.get("alpha_pattern")):
        yield "target_parameters with rank_pattern or alpha_pattern: the ranks of the experts are unknown"
    explained = KNOWN | REFUSED.keys() | NEEDS_BASE.keys()
    unknown = [key for key, value in raw.items() if value and key not in explained]
    if unknown:
        yield f"{', '.join(unknown)}: unknown fields, which may change what B·A means"
    for field in (
        "target_modules", "exclude_modules", "layers_pattern", "modules_to_save", "target_parameters",
    ):  # fmt: skip
        value, text = raw.get(field), () if field in ("modules_to_save", "target_parameters") else str
        names = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if not names and value is not None and not isinstance(value, text):
            yield f"{field} {show_value(value)}: expected a list of module names"
    for field, pattern in _patterns(raw):
        try:
            re.compile(pattern)
        except re.error as error:
            yield f"{field} {show_value(pattern)}: no regular expression: {error}"
    for field in ("use_rslora", "fan_in_fan_out", "use_dora"):
        if raw.get(field) not in (True, False, None):
            yield f"{field} {show_value(raw[field])}: expected true or false"
    if raw.get("bias", "none") not in ("none", "all", "lora_only"):
        yield f"bias {show_value(raw['bias'])}: expected none, all or lora_only"
    base = raw.get("base_model_name_or_path")
    if not isinstance(base, str | None):
        yield f"base_model_name_or_path {show_value(base)}: expected a name"


def _patterns(raw: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((f, raw[f]) for f in ("target_modules", "exclude_modules") if isinstance(raw.get(f), str))
    for field in ("rank_pattern", "alpha_pattern"):
        yield from ((field, f"(.*\\.)?({key})$") for key in _map(raw, field))
    layers = raw.get("layers_pattern") or []
    names = layers if isinstance(layers, list) else [layers]
    yield from (("layers_pattern", rf".*\.{name}\.(\d+)\.") for name in names)


def _map(raw: dict[str, Any], field: str) -> dict[str, Any]:
    value = raw.get(field) or {}
    if not isinstance(value, dict):
        raise ContentError(f"{field} {show_value(value)}: expected a map of module patterns")
    return value


def positive_int(value: object, where: str) -> int:
    """Return a whole number above 0; the `ContentError` for another opens with `where`."""
    if type(value) is not int or value < 1:
        raise ContentError(f"{where} {show_value(value)}: expected a whole number above 0")
    return value


def positive(value: object, where: str, largest: float = LARGEST) -> float:
    """Return a finite number above 0; the `ContentError` for another opens with `where`."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= largest:
        raise ContentError(f"{where} {show_value(value)}: expected a finite number above 0")
    return float(value)
