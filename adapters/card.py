"""What a written adapter says about itself: its config in plain LoRA terms, and README.md."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from adapters.base import Base
from adapters.merge import FrobeniusErrors, MergePlan
from adapters.merge_recipe import recipe_text
from adapters.output import MARK
from adapters.store import WEIGHTS, Adapter, find_folder, open_adapter
from adapters.weighted import WeightedAdapter, parse_reference_weight
from core.documents import parse_yaml
from core.errors import ContentError, TuneyardError
from core.files import versions

SOURCE = re.compile(r"^\| (.+?) \| [^|]+ \| [^|]+ \| `[0-9a-f]{64}` \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def merged_config(plan: MergePlan) -> dict[str, object]:
    """Return a plain adapter_config.json: one rank, alpha = rank, no patterns, no rsLoRA."""
    first = plan.weighted[0].adapter
    loras = [item.adapter.lora for item in plan.weighted]
    full_tensors = sorted({name for lora in loras for name in lora.modules_to_save})
    return {
        "base_model_name_or_path": base_name(plan.weighted, plan.base),
        "bias": "all" if any(whole.name.endswith(".bias") for whole in plan.full_tensors) else "none",
        "fan_in_fan_out": first.lora.fan_in_fan_out,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": plan.rank,
        "lora_dropout": 0.0,
        "modules_to_save": full_tensors or None,
        "peft_type": "LORA",
        "r": plan.rank,
        "revision": first.config.get("revision"),
        "target_modules": _targets(plan),
        "task_type": first.config.get("task_type"),
        "use_dora": False,
        "use_rslora": False,
    }


def _targets(plan: MergePlan) -> list[str]:
    """Return the sources' plain names where together they mean these modules alone, else every path."""
    narrowing = ("exclude_modules", "layers_to_transform")
    names: set[str] = set()
    for item in plan.weighted:
        targets = item.adapter.config.get("target_modules")
        if not isinstance(targets, list) or any(
            item.adapter.config.get(f) not in (None, []) for f in narrowing
        ):
            return sorted(plan.modules)
        names.update(targets)
    return sorted(names)


def base_name(weighted: Iterable[WeightedAdapter], base: Base | None) -> str | None:
    """Return the base as the adapters name it, or the folder given where they name it differently."""
    named = list(dict.fromkeys(item.adapter.base for item in weighted if item.adapter.base))
    return str(base.folder) if base and len(named) > 1 else next(iter(named), None)


def base_line(weighted: Iterable[WeightedAdapter], folder: Base | None) -> str:
    """Return the card's YAML line on the base; a name that is no plain word is quoted."""
    base = base_name(weighted, folder)
    if base is None:
        return "# base_model: not named by the adapters"
    return f"base_model: {base if re.fullmatch(r'[A-Za-z0-9_./-]+', base) else json.dumps(base)}"


def weighted_names(weighted: Iterable[WeightedAdapter]) -> str:
    """Return `rte (0.5) and mnli (0.5)`."""
    return " and ".join(f"{item.adapter.name} ({item.weight:g})" for item in weighted)


def made_with() -> str:
    """Return the mark by which a card is known as ours, with the versions that matter."""
    return f"{MARK} with " + ", ".join(f"{name} {found}" for name, found in versions("numpy").items())


def sources(weighted: Iterable[WeightedAdapter]) -> str:
    """Return the table of adapters: weight, rank and hashes of each."""
    rows = (
        f"| {item.adapter.name} | {item.weight:g} | {item.adapter.lora.rank} "
        f"| `{item.adapter.weights_sha256}` | `{item.adapter.digest}` |"
        for item in weighted
    )
    head = f"| adapter | weight | rank | SHA-256 of {WEIGHTS} | digest (weights and config) |"
    return "\n".join((head, "|---|---|---|---|---|", *rows))


def made_from(card: Path) -> Iterator[Adapter | TuneyardError]:
    """Yield each adapter that a card of ours names, or the error where it is gone or changed."""
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    if MARK not in text:
        return
    recipe = re.search(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    listed: Any = parse_yaml(recipe[1], str(card)).value if recipe else {"adapters": []}
    found = SOURCE.findall(text)
    named = [parse_reference_weight(item)[0] for item in listed["adapters"]] or [name for name, _ in found]
    for reference, (_, digest) in zip(named, found, strict=False):
        try:
            adapter = open_adapter(find_folder(reference).resolve())
            if adapter.digest != digest:
                raise ContentError(f"{reference} changed since it was merged")
            yield adapter
        except TuneyardError as error:
            yield error


def card(plan: MergePlan, errors: FrobeniusErrors) -> str:
    """Return README.md: what was merged how, from which files, and the error of the result."""
    layers = "\n".join(
        f"| {path} | {errors.exact[path]:.4g} | {errors.relative([path]):.2e} |" for path in plan.modules
    )
    return f"""---
{base_line(plan.weighted, plan.base)}
library_name: peft
tags: [lora, merge]
---

# Merge of {weighted_names(plan.weighted)}

ΔW = Σ weight · scale · B·A, method `{plan.options.method}`, rank {plan.rank}, {made_with()}.
Scales and weights are folded into B: alpha equals the rank, so the file's own scale is 1.

```yaml
{recipe_text(plan)}```

{sources(plan.weighted)}

Relative Frobenius error against the exact sum: {errors.relative():.2e} in all.

| module | norm of ΔW | relative error |
|---|---|---|
{layers}
"""
