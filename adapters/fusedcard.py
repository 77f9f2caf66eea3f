"""What a fused model says about itself: its config, how much of ΔW it retains, and README.md."""

from adapters.card import base_line, made_with, sources, weighted_names
from adapters.delta import Retained
from adapters.fuse import FusePlan
from adapters.merge_recipe import adapters_text

MUCH_LOST = 0.1  # of ‖ΔW‖; below it bf16 rounding is as good as invisible in the adapters' own effect


def total(retained: dict[str, Retained]) -> Retained:
    """Return the sums over all modules."""
    found = Retained()
    for counts in retained.values():
        found.add(counts)
    return found


def advice(plan: FusePlan, retained: dict[str, Retained]) -> str:
    """Return what to do where rounding takes much of ΔW away, else an empty string."""
    lost = total(retained).error
    if lost <= MUCH_LOST or plan.options.dtype == "F32":
        return ""
    return (
        f"{lost:.0%} of ΔW is rounded away: write --dtype fp32, or serve the adapter unmerged, which is exact"
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


def fused_card(plan: FusePlan, retained: dict[str, Retained]) -> str:
    """Return README.md: base, adapters with their hashes, and what is retained of ΔW by module."""
    rows = "\n".join(
        f"| {module} | {s.fraction:.1%} | {s.error:.2e} | {s.unchanged_share:.1%} |"
        for module, s in retained.items()
    )
    overall = total(retained)
    as_nf4 = f" as {plan.options.base_as} gives it back" if plan.options.base_as else ""
    return f"""---
{base_line(plan.weighted, plan.base)}
tags: [lora, fused]
---

# {plan.base.folder.resolve().name} with {weighted_names(plan.weighted)}

The base{as_nf4} plus ΔW = Σ weight · scale · B·A, rounded once, {made_with()}.

```yaml
{adapters_text(plan.weighted)}```

{sources(plan.weighted)}

After rounding: retained fraction of ΔW {overall.fraction:.1%}, relative Frobenius error {overall.error:.2e},
unchanged elements {overall.unchanged_share:.1%}.

| module | retained fraction of ΔW | relative error | unchanged |
|---|---|---|---|
{rows}
"""
