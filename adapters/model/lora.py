"""LoRA: ΔW = s·B·A, s = α/r (α/√r for rsLoRA). Hu et al. 2021, arXiv:2106.09685, as PEFT 0.18.1 has it."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, Self

import numpy as np

from tuneyard.adapters.model import lowrank
from tuneyard.adapters.model.adapter import (
    Adapter,
    AdapterConfig,
    ModuleStatistics,
    checked_fields,
    layer_of,
    span,
    wrong_numbers,
)
from tuneyard.adapters.model.change import Change, Product
from tuneyard.adapters.model.patterns import EndPatterns
from tuneyard.core.errors import show_value
from tuneyard.core.language.message import _, tr
from tuneyard.core.training.training_run import PISSA_CONVERTED
from tuneyard.core.weights.adapter_files import CONFIG, PAIRS, PREFIX, Module, adapted_modules
from tuneyard.core.weights.base_compatibility import as_stored
from tuneyard.core.weights.base_models import Base
from tuneyard.core.weights.tensors import Array, Tensor

# Starts that leave the base model as it was (BA = 0, or the usual zero B).
PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
CONVERTED = ("pissa", "olora", "corda")  # from a changed base, and PEFT can subtract the start again
CHANGED_STARTS = (*CONVERTED, "loftq", "lora_ga")
CONVERT_WITH_PEFT = (
    "save it again with PEFT's save_pretrained(DIR, path_initial_model_for_weight_conversion=INITIAL)"
)
# pissa_convert leaves these next to the converted adapter, marked as if they began from the published base.
PISSA_LEFTOVERS = ("pissa_init", "pissa_backup")
KNOWN = {
    "alpha_pattern", "bias", "exclude_modules", "fan_in_fan_out", "init_lora_weights", "layers_pattern",
    "layers_to_transform", "lora_alpha", "modules_to_save", "r", "rank_pattern", "target_modules",
    "use_dora", "use_rslora",
    # no influence on ΔW once an adapter is trained
    "auto_mapping", "base_model_name_or_path", "corda_config", "ensure_weight_tying", "eva_config",
    "inference_mode", "loftq_config", "lora_dropout", "megatron_core", "modelcard", "peft_type",
    "peft_version", "qalora_group_size", "revision", "runtime_config", "task_type",
}  # fmt: skip
REFUSED = {
    "alora_invocation_tokens": _("aLoRA acts only after its invocation tokens"),
    "arrow_config": _("an Arrow router chooses between adapters at run time"),
    "layer_replication": _("the adapter belongs to a base with replicated layers"),
    "lora_bias": _("the adapter adds a bias next to B·A"),
    "megatron_config": _("Megatron's sharded layers are not supported"),
    "target_parameters": _(
        "LoRA on bare parameters (the experts of MoE layers), which LLaMA-Factory cannot train; merge it "
        "into its base with PEFT: PeftModel.from_pretrained(BASE, DIR).merge_and_unload()"
    ),
    "trainable_token_indices": _("it replaces single rows of the embedding"),
    "use_qalora": _("QA-LoRA pools its inputs"),
}
NUMBERS = {"r": "rank_pattern", "lora_alpha": "alpha_pattern"}  # each with its values by module
SWITCHES = ("use_rslora", "fan_in_fan_out", "use_dora")
# Limits of vLLM (vllm/config/lora.py, vllm/lora/peft_helper.py).
VLLM_DEFAULT_RANK = 16  # of --max-lora-rank
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # allowed values of --max-lora-rank
NOT_IN_VLLM = _("vLLM takes no adapter with modules_to_save or bias: fuse it for vLLM")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraConfig(AdapterConfig):
    """The config of a LoRA adapter, with or without DoRA. `ranks` and `alphas` are by module pattern."""

    rank: int
    alpha: float
    ranks: dict[str, int]
    alphas: dict[str, float]

    def scale_of(self, module: str) -> float:
        """Scale s = α/r (α/√r for rsLoRA) of a module, both patterns respected."""
        alpha, rank = self.alpha_of(module), self.rank_of(module)
        if self.raw.get("use_rslora"):
            return alpha / math.sqrt(rank)
        return alpha / rank

    def alpha_of(self, module: str) -> float:
        """α of a module."""
        pattern = self._alpha_patterns.first(module)
        if pattern is None:
            return self.alphas.get(module, self.alpha)
        return self.alphas[pattern]

    def rank_of(self, module: str) -> int:
        """r of a module by the config."""
        pattern = self._rank_patterns.first(module)
        if pattern is None:
            return self.ranks.get(module, self.rank)
        return self.ranks[pattern]

    @cached_property
    def _alpha_patterns(self) -> EndPatterns:
        """The patterns of `alpha_pattern`."""
        return EndPatterns(self.alphas)

    @cached_property
    def _rank_patterns(self) -> EndPatterns:
        """The patterns of `rank_pattern`."""
        return EndPatterns(self.ranks)


@dataclass(frozen=True, slots=True)
class FactorStatistics(ModuleStatistics):
    """One module of a LoRA: the sizes of its factors, norm (Frobenius) and spectrum of s·B·A.

    The effective rank is exp of the entropy of the normalised singular values (Roy and Vetterli 2007).
    """

    kind: str
    outputs: int
    inputs: int
    rank: int
    scale: float
    norm: float
    effective_rank: float
    singular_values: list[float]

    @property
    def change_norm(self) -> float:
        """See `ModuleStatistics`."""
        return self.norm


@dataclass(frozen=True)
class LoraAdapter(Adapter):
    """A LoRA adapter."""

    config: LoraConfig
    modules: dict[str, Module]

    TENSORS = _("LoRA factors")
    SUFFIXES = tuple(suffix for pair in PAIRS.values() for suffix in pair)
    TAG = "lora"
    CHANGE = "plus ΔW = Σ weight · scale · B·A"
    read_modules = staticmethod(adapted_modules)
    SETTINGS: ClassVar[Sequence[tuple[str, str]]] = (
        (_("type"), "peft_type"), (_("task"), "task_type"), (_("rank"), "r"), (_("alpha"), "lora_alpha"),
        (_("dropout"), "lora_dropout"), (_("bias"), "bias"), (_("target modules"), "target_modules"),
    )  # fmt: skip
    COLUMNS: ClassVar[Sequence[str]] = (
        _("target"), _("modules"), _("rank"), _("scale"), "A", "B", _("parameters"), _("norm of ΔW"),
        _("effective rank"),
    )  # fmt: skip

    @staticmethod
    def recognises(raw: Mapping[str, Any]) -> bool:
        """See `Adapter`."""
        return raw.get("peft_type") == "LORA" and not raw.get("use_dora")

    @staticmethod
    def read_config(path: Path, raw: dict[str, Any]) -> LoraConfig:
        """See `Adapter`."""
        shared = checked_fields(path, raw, _problems(raw, path.parent), KNOWN | REFUSED.keys(), SWITCHES)
        return LoraConfig(
            **shared,
            rank=raw["r"],
            alpha=raw["lora_alpha"],
            ranks=raw.get("rank_pattern") or {},
            alphas=raw.get("alpha_pattern") or {},
        )

    @property
    def largest_rank(self) -> int:
        """The largest rank of a module."""
        return max(module.rank for module in self.modules.values())

    @property
    def parameters(self) -> int:
        """Elements of A and B of all modules."""
        return sum(module.parameters for module in self.modules.values())

    def factors(self, module: str) -> tuple[Array, Array]:
        """A [rank, inputs] and B [outputs, rank] as fp32, unscaled; NaN is a `ContentError`."""
        down, up = PAIRS[self.modules[module].kind]
        return self.weights.read(f"{PREFIX}{module}{down}"), self.weights.read(f"{PREFIX}{module}{up}")

    def on_base(self, base: Base) -> Self:
        """See `Adapter`. PEFT records one `fan_in_fan_out`, though a head is stored otherwise than Conv1D."""
        modules = {path: as_stored(base, path, module) for path, module in self.modules.items()}
        return replace(self, modules=modules)

    def mismatches(self) -> Iterator[str]:
        """See `Adapter`."""
        for path, module in self.modules.items():
            rank = self.config.rank_of(path)
            if self.config.targets(path) and module.rank != rank:
                yield _(
                    "{path}: rank {rank}, but {config} gives it {expected}",
                    path=path,
                    rank=module.rank,
                    config=CONFIG,
                    expected=rank,
                )
            self.config.scale_of(path)  # matches alpha_pattern too, here where its time is limited

    def change(self, weight: float, path: str, source: Tensor, base_as: str | None) -> Change:  # noqa: ARG002
        """See `Adapter`."""
        return self.product(weight, path)

    def product(self, weight: float, path: str) -> Product:
        """`weight` · s·B·A of a module, as its stored weight changes."""
        scale = self.config.scale_of(path)
        a, b = lowrank.WeightedFactors(path, [self.factors(path)], [scale], [weight], weight).exact
        if self.modules[path].transposed:
            return Product(a.T, b.T)
        return Product(b, a)

    def is_zero(self, path: str, base: Base | None) -> bool:  # noqa: ARG002  # DoRA needs the base
        """See `Adapter`. B is 0 at the start, A in other tools, and both may cancel."""
        down, up = self.factors(path)
        return not up.any() or not down.any() or lowrank.product_norm(down, up) == 0

    def measure(self, path: str) -> FactorStatistics:
        """See `Adapter`."""
        module, scale = self.modules[path], self.config.scale_of(path)
        values = scale * lowrank.singular_values(*self.factors(path))
        shares = values[values > 0] / (values.sum() or 1.0)
        effective_rank = 0.0
        if len(shares):
            effective_rank = float(np.exp(-(shares * np.log(shares)).sum()))
        return FactorStatistics(
            path,
            layer_of(path),
            path.rpartition(".")[2],
            module.parameters,
            module.kind,
            module.outputs,
            module.inputs,
            module.rank,
            scale,
            norm=float(np.sqrt((values**2).sum())),
            effective_rank=effective_rank,
            singular_values=values.tolist(),
        )

    @staticmethod
    def rows(modules: Sequence[FactorStatistics]) -> list[list[str]]:
        """See `Adapter`. A row has the modules of one target and shape."""
        groups: dict[tuple[str, int, int], list[FactorStatistics]] = {}
        for module in modules:
            groups.setdefault((module.target, module.outputs, module.inputs), []).append(module)
        rows = []
        for (target, outputs, inputs), group in groups.items():
            if group[0].kind == "embedding":
                target += tr(" (embedding)")
            rank = span([module.rank for module in group])
            scale, norm = span([module.scale for module in group]), span([module.norm for module in group])
            elements = sum(module.parameters for module in group)
            effective_rank = median(module.effective_rank for module in group)
            row = [target, str(len(group)), rank, scale, f"{rank}×{inputs}", f"{outputs}×{rank}"]
            rows.append([*row, f"{elements:,}", norm, f"{effective_rank:.1f}"])
        return rows


def vllm_rank(rank: int) -> int | None:
    """The smallest --max-lora-rank that is enough for `rank`, None if vLLM has none."""
    for allowed in VLLM_RANKS:
        if allowed >= rank:
            return allowed
    return None


def vllm_notes(rank: int, full_tensors: bool) -> Iterator[str]:
    """Yield the reasons for which vLLM would refuse a LoRA, and the options that it needs."""
    lora_rank = vllm_rank(rank)
    if lora_rank is None:
        yield _(
            "rank {rank} is above vLLM's largest, {largest}: use --method svd --rank, or fuse it",
            rank=rank,
            largest=VLLM_RANKS[-1],
        )
    elif lora_rank > VLLM_DEFAULT_RANK:
        default = VLLM_DEFAULT_RANK
        yield _(
            "rank {rank} is above vLLM's default of {default}: serve with --max-lora-rank {enough}",
            rank=rank,
            default=default,
            enough=lora_rank,
        )
    if full_tensors:
        yield NOT_IN_VLLM


def _problems(raw: dict[str, Any], folder: Path) -> Iterator[str]:
    """Yield why ΔW is not s·B·A."""
    start = raw.get("init_lora_weights", True)
    if start in PLAIN_STARTS:
        if folder.resolve().name in PISSA_LEFTOVERS:
            yield _(
                "LLaMA-Factory keeps this of a PiSSA run. Its B·A is the change from PiSSA's "
                "changed base; {fix}",
                fix=_how_to_convert(folder),
            )
    elif isinstance(start, str) and start.lower().startswith(CHANGED_STARTS):
        fix: str = _("no conversion is known: serve it on the base saved with it")
        if start.lower().startswith("pissa"):
            fix = _how_to_convert(folder)
        elif start.lower().startswith(CONVERTED):
            fix = _("convert it: {command}", command=CONVERT_WITH_PEFT)
        yield _(
            "init_lora_weights {start}: training began from a changed base, so B·A is "
            "not the change from the published one; {fix}",
            start=show_value(start),
            fix=fix,
        )
    else:
        yield _("init_lora_weights {start}: an unknown start", start=show_value(start))
    for field, why in REFUSED.items():
        if raw.get(field):
            yield _("{field} {value}: {reason}", field=field, value=show_value(raw[field]), reason=why)
    if raw.get("bias", "none") not in ("none", "all", "lora_only"):
        yield _("bias {bias}: expected none, all or lora_only", bias=show_value(raw["bias"]))
    for field, pattern in NUMBERS.items():
        numbers = {field: raw.get(field)}
        if isinstance(raw.get(pattern), dict):
            numbers.update((f"{pattern} {key}", number) for key, number in raw[pattern].items())
        yield from wrong_numbers(numbers, whole=field == "r")


def _how_to_convert(folder: Path) -> str:
    """What to use instead of an adapter that began as PiSSA.

    With `pissa_convert` LLaMA-Factory converts the end of a training, in its output_dir.
    """
    name = folder.resolve().name
    output_dir = folder
    if name.startswith("checkpoint-") or name in PISSA_LEFTOVERS:
        output_dir = Path(os.path.normpath(folder / ".."))
    converted = output_dir / PISSA_CONVERTED
    if not (converted / CONFIG).is_file():
        return _(
            "train again with pissa_convert: true in the recipe and use the plain LoRA "
            "in OUTPUT_DIR/{folder}; for an adapter that PEFT trained: {command}",
            folder=PISSA_CONVERTED,
            command=CONVERT_WITH_PEFT,
        )
    if name.startswith("checkpoint-"):
        return _(
            "LLaMA-Factory converted only the end of this training: use {path}, a plain LoRA", path=converted
        )
    return _("use {path} instead, the plain LoRA that LLaMA-Factory converted it to", path=converted)
