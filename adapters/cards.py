"""README.md of what merge and fuse write, from one builder, and the adapters that such a card names."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from adapters.base import Base
from adapters.delta import Retained, total
from adapters.fuse import FusePlan
from adapters.merge import FrobeniusErrors, MergePlan, base_name
from adapters.merge_recipe import adapters_text, recipe_text
from adapters.output import MARK
from adapters.store import WEIGHTS, Adapter, find_folder, open_adapter
from adapters.weighted import WeightedAdapter, parse_reference_weight
from core.documents import markdown_table, parse_yaml
from core.errors import ContentError, TuneyardError
from core.files import versions

SOURCE = re.compile(r"^\| (.+?) \| [^|]+ \| [^|]+ \| `[0-9a-f]{64}` \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def merge_card(plan: MergePlan, errors: FrobeniusErrors) -> str:
    """Return README.md of a merge: how it was made, from which files, and the error of every module."""
    rows = [[path, f"{errors.exact[path]:.4g}", f"{errors.relative([path]):.2e}"] for path in plan.modules]
    return _card(
        plan,
        "library_name: peft\ntags: [lora, merge]",
        f"Merge of {_weighted_names(plan.weighted)}",
        f"ΔW = Σ weight · scale · B·A, method `{plan.options.method}`, rank {plan.rank}, {_made_with()}.\n"
        "Scales and weights are folded into B: alpha equals the rank, so the file's own scale is 1.",
        recipe_text(plan),
        f"Relative Frobenius error against the exact sum: {errors.relative():.2e} in all.",
        markdown_table(["module", "norm of ΔW", "relative error"], rows),
    )


def fused_card(plan: FusePlan, retained: dict[str, Retained]) -> str:
    """Return README.md of a fused model: base, adapters with their hashes, what is retained of each ΔW."""
    rows = [
        [module, f"{one.fraction:.1%}", f"{one.error:.2e}", f"{one.unchanged_share:.1%}"]
        for module, one in retained.items()
    ]
    overall = total(retained.values())
    as_nf4 = f" as {plan.options.base_as} gives it back" if plan.options.base_as else ""
    return _card(
        plan,
        "tags: [lora, fused]",
        f"{plan.base.folder.resolve().name} with {_weighted_names(plan.weighted)}",
        f"The base{as_nf4} plus ΔW = Σ weight · scale · B·A, rounded once, {_made_with()}.",
        adapters_text(plan.weighted),
        f"After rounding: retained fraction of ΔW {overall.fraction:.1%}, relative Frobenius error "
        f"{overall.error:.2e},\nunchanged elements {overall.unchanged_share:.1%}.",
        markdown_table(["module", "retained fraction of ΔW", "relative error", "unchanged"], rows),
    )


def _card(plan: MergePlan | FusePlan, head: str, title: str, *sections: str) -> str:
    """Return a card: front matter, title, introduction, recipe, adapters, result in all and by module."""
    introduction, recipe, result, table = sections
    front = f"---\n{_base_line(plan.weighted, plan.base)}\n{head}\n---"
    adapters = _sources(plan.weighted)
    made = (front, f"# {title}", introduction, f"```yaml\n{recipe}```", adapters, result, table)
    return "\n\n".join(made) + "\n"


def _base_line(weighted: Iterable[WeightedAdapter], folder: Base | None) -> str:
    """Return the card's YAML line on the base; a name that is no plain word is quoted."""
    base = base_name(weighted, folder)
    if base is None:
        return "# base_model: not named by the adapters"
    return f"base_model: {base if re.fullmatch(r'[A-Za-z0-9_./-]+', base) else json.dumps(base)}"


def _weighted_names(weighted: Iterable[WeightedAdapter]) -> str:
    """Return `rte (0.5) and mnli (0.5)`."""
    return " and ".join(f"{item.adapter.name} ({item.weight:g})" for item in weighted)


def _made_with() -> str:
    """Return the mark by which a card is known as ours, with the versions that matter."""
    return f"{MARK} with " + ", ".join(f"{name} {found}" for name, found in versions("numpy").items())


def _sources(weighted: Iterable[WeightedAdapter]) -> str:
    """Return the table of adapters, of which `SOURCE` is a row."""
    header = ["adapter", "weight", "rank", f"SHA-256 of {WEIGHTS}", "digest (weights and config)"]
    rows = (
        [
            item.adapter.name,
            f"{item.weight:g}",
            str(item.adapter.lora.rank),
            f"`{item.adapter.weights_sha256}`",
            f"`{item.adapter.digest}`",
        ]
        for item in weighted
    )
    return markdown_table(header, rows)


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
