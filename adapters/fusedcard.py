"""What a fused model says about itself: its config, how much of ΔW it holds, and README.md."""

from adapters.card import base_line, made_with, sources, weighted_names
from adapters.change import Survival
from adapters.fuse import FusePlan
from adapters.recipe import adapters_text

MUCH_LOST = 0.1  # of ‖ΔW‖; below it bf16 rounding is as good as invisible in the adapters' own effect


def total(survivals: dict[str, Survival]) -> Survival:
    """Return the sums over all modules."""
    found = Survival()
    for survival in survivals.values():
        found.add(survival)
    return found


def advice(plan: FusePlan, survivals: dict[str, Survival]) -> str:
    """Return what to do where rounding takes much of ΔW away, else an empty string."""
    lost = total(survivals).distance
    if lost <= MUCH_LOST or plan.options.dtype == "F32":
        return ""
    return (
        f"{lost:.0%} of ΔW is rounded away: write --dtype fp32, or serve the adapter live beside the base "
        "(it is exact there)"
    )


def fused_config(plan: FusePlan) -> dict[str, object]:
    """Return the base's config.json with what fusing changed: dtype, and tying where it was undone."""
    config = _changed(plan.base.config, plan)
    nested = config.get("text_config")
    if isinstance(nested, dict):
        config["text_config"] = _changed(nested, plan)
    return {**config, "tie_word_embeddings": False} if plan.untied else config


def _changed(config: dict[str, object], plan: FusePlan) -> dict[str, object]:
    changes: dict[str, object] = {}
    if plan.untied:
        changes["tie_word_embeddings"] = False
    if plan.vocabulary:
        changes["vocab_size"] = plan.vocabulary
    if plan.options.dtype == "F32":
        changes |= {"torch_dtype": "float32", "dtype": "float32"}
    return {**config, **{field: value for field, value in changes.items() if field in config}}


def fused_card(plan: FusePlan, survivals: dict[str, Survival]) -> str:
    """Return README.md: base, adapters with their hashes, and what survived of ΔW by module."""
    rows = "\n".join(
        f"| {module} | {s.share:.1%} | {s.distance:.2e} | {s.still:.1%} |" for module, s in survivals.items()
    )
    whole = total(survivals)
    as_nf4 = f" as {plan.options.base_as} gives it back" if plan.options.base_as else ""
    return f"""---
{base_line(plan.parts, plan.base)}
tags: [lora, fused]
---

# {plan.base.folder.resolve().name} with {weighted_names(plan.parts)}

The base{as_nf4} plus ΔW = Σ weight · scale · B·A, rounded once, {made_with()}.

```yaml
{adapters_text(plan.parts)}```

{sources(plan.parts)}

Of ΔW {whole.share:.1%} survives rounding; {whole.still:.1%} of the elements do not change; the written change
is {whole.distance:.2e} of ‖ΔW‖ away from ΔW.

| module | survives | distance | unchanged |
|---|---|---|---|
{rows}
"""
