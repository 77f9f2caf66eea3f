"""What a written adapter says about itself: its config in plain LoRA terms, and README.md."""

import json
import re
from collections.abc import Iterable

from adapters.merge import Distances, Plan
from adapters.output import MARK
from adapters.parts import Part
from adapters.recipe import recipe_text
from adapters.store import WEIGHTS
from core.files import versions


def merged_config(plan: Plan) -> dict[str, object]:
    """Return a plain adapter_config.json: one rank, alpha = rank, no patterns, no rsLoRA."""
    first = plan.parts[0].adapter
    loras = [part.adapter.lora for part in plan.parts]
    wholes = sorted({name for lora in loras for name in lora.wholes})
    return {
        "base_model_name_or_path": next((lora.base for lora in loras if lora.base), None),
        "bias": "all" if any(lora.bias != "none" for lora in loras) else "none",
        "fan_in_fan_out": first.lora.fan_in_fan_out,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": plan.rank,
        "lora_dropout": 0.0,
        "modules_to_save": wholes or None,
        "peft_type": "LORA",
        "r": plan.rank,
        "revision": first.config.get("revision"),
        "target_modules": _targets(plan),
        "task_type": first.config.get("task_type"),
        "use_dora": False,
        "use_rslora": False,
    }


def _targets(plan: Plan) -> list[str]:
    """Return the sources' plain names where together they mean these modules alone, else every path."""
    narrowing = ("exclude_modules", "layers_to_transform")
    names: set[str] = set()
    for part in plan.parts:
        targets = part.adapter.config.get("target_modules")
        if not isinstance(targets, list) or any(
            part.adapter.config.get(f) not in (None, []) for f in narrowing
        ):
            return sorted(plan.modules)
        names.update(targets)
    return sorted(names)


def base_line(parts: Iterable[Part]) -> str:
    """Return the card's YAML line on the base; a name that is no plain word is quoted."""
    base = next((part.adapter.base for part in parts if part.adapter.base), None)
    if base is None:
        return "# base_model: not named by the adapters"
    return f"base_model: {base if re.fullmatch(r'[A-Za-z0-9_./-]+', base) else json.dumps(base)}"


def weighted_names(parts: Iterable[Part]) -> str:
    """Return `rte (0.5) and mnli (0.5)`."""
    return " and ".join(f"{part.adapter.name} ({part.weight:g})" for part in parts)


def made_with() -> str:
    """Return the mark by which a card is known as ours, with the versions that matter."""
    return f"{MARK} with " + ", ".join(f"{name} {found}" for name, found in versions("numpy").items())


def sources(parts: Iterable[Part]) -> str:
    """Return the table of adapters: weight, rank and hashes of each."""
    rows = (
        f"| {part.adapter.name} | {part.weight:g} | {part.adapter.lora.rank} "
        f"| `{part.adapter.weights_sha256}` | `{part.adapter.digest}` |"
        for part in parts
    )
    head = f"| adapter | weight | rank | SHA-256 of {WEIGHTS} | digest (weights and config) |"
    return "\n".join((head, "|---|---|---|---|---|", *rows))


def card(plan: Plan, distances: Distances) -> str:
    """Return README.md: what was merged how, from which files, and how far the result is from the sum."""
    layers = "\n".join(
        f"| {path} | {distances.exact[path]:.4g} | {distances.relative([path]):.2e} |"
        for path in plan.modules
    )
    return f"""---
{base_line(plan.parts)}
library_name: peft
tags: [lora, merge]
---

# Merge of {weighted_names(plan.parts)}

ΔW = Σ weight · scale · B·A, method `{plan.method.name}`, rank {plan.rank}, {made_with()}.
Scales and weights are folded into B: alpha equals the rank, so the file's own scale is 1.

```yaml
{recipe_text(plan)}```

{sources(plan.parts)}

Relative Frobenius distance from the exact sum: {distances.relative():.2e} in all.

| module | norm of ΔW | distance |
|---|---|---|
{layers}
"""
