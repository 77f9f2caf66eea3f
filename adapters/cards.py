"""README.md of what merge and fuse write, from one builder, and the adapters that such a card names."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from adapters.delta import Retained, total
from adapters.fuse import FusePlan
from adapters.merge import MergePlan, Norms, base_name, relative
from adapters.output import MARK, read_card
from adapters.request import DTYPES
from adapters.store import SAVES, WEIGHTS, Adapter, find_folder, open_adapter
from adapters.weighted import WeightedAdapter, parse_reference_weight
from core.documents import markdown_table, parse_yaml
from core.errors import ContentError, TuneyardError
from core.files import versions

SOURCE = re.compile(r"^\| (.+?) \| [^|]+ \| [^|]+ \| `[0-9a-f]{64}` \| `([0-9a-f]{64})` \|$", re.MULTILINE)


def merge_card(plan: MergePlan, norms: Norms) -> str:
    """Return README.md of a merge: how it was made, from which files, and the error of every module."""
    request = plan.request
    lines = [f"method: {request.method}"]
    lines += [f"rank: {request.rank}"] if request.rank is not None else []
    lines += [f"energy: {request.energy!r}"] if request.energy is not None else []
    lines += [f"dtype: {name}" for name, stored in DTYPES.items() if stored == request.dtype != "F32"]
    lines += [f"base: {json.dumps(str(plan.base.folder))}"] if plan.base else []
    rows = [[path, f"{pair[0]:.4g}", f"{relative([pair]):.2e}"] for path, pair in norms.items()]
    return _card(
        plan,
        "library_name: peft\ntags: [lora, merge]",
        "Merge of",
        f"ΔW = Σ weight · scale · B·A, method `{request.method}`, rank {plan.rank}, {_made_with()}.\n"
        "Scales and weights are folded into B: alpha equals the rank, so the file's own scale is 1.",
        "\n".join(lines) + "\n",
        f"Relative Frobenius error against the exact sum: {relative(norms.values()):.2e} in all.",
        markdown_table(["module", "norm of ΔW", "relative error"], rows),
    )


def fused_card(plan: FusePlan, retained: dict[str, Retained]) -> str:
    """Return README.md of a fused model: base, adapters with their hashes, what is retained of each ΔW."""
    rows = [
        [module, f"{one.fraction:.1%}", f"{one.error:.2e}", f"{one.unchanged_share:.1%}"]
        for module, one in retained.items()
    ]
    overall = total(retained.values())
    as_nf4 = f" as {plan.request.base_as} gives it back" if plan.request.base_as else ""
    return _card(
        plan,
        "tags: [lora, fused]",
        f"{plan.base.folder.resolve().name} with",
        f"The base{as_nf4} plus ΔW = Σ weight · scale · B·A, rounded once, {_made_with()}.",
        "",
        f"After rounding: retained fraction of ΔW {overall.fraction:.1%}, relative Frobenius error "
        f"{overall.error:.2e},\nunchanged elements {overall.unchanged_share:.1%}.",
        markdown_table(["module", "retained fraction of ΔW", "relative error", "unchanged"], rows),
    )


def _card(plan: MergePlan | FusePlan, head: str, title: str, *sections: str) -> str:
    """Return a card: front matter, title, introduction, recipe, adapters, result in all and by module."""
    introduction, how, result, table = sections
    base = base_name(plan.weighted, plan.base)
    named = "# base_model: not named by the adapters"
    if base is not None:
        named = f"base_model: {base if re.fullmatch(r'[A-Za-z0-9_./-]+', base) else json.dumps(base)}"
    recipe = how + "".join(["adapters:\n", *(f"  - {_item(item)}\n" for item in plan.weighted)])
    header = ["adapter", "weight", "rank", f"SHA-256 of {WEIGHTS}", "digest (weights and config)"]
    pairs = [(item.adapter, item.weight) for item in plan.weighted]
    title += " " + " and ".join(f"{one.name} ({weight:g})" for one, weight in pairs)
    rows = [  # each as `SOURCE` reads it
        [one.name, f"{weight:g}", str(one.lora.rank), f"`{one.weights_sha256}`", f"`{one.digest}`"]
        for one, weight in pairs
    ]
    front, adapters = f"---\n{named}\n{head}\n---", markdown_table(header, rows)
    return "\n\n".join(
        [front, f"# {title}", introduction, f"```yaml\n{recipe}```", adapters, result, f"{table}\n"]
    )


def _item(item: WeightedAdapter) -> str:
    """Return `NAME=WEIGHT`, or the folder's path where the name alone would not find it."""
    folder = item.adapter.folder
    found = (SAVES / item.adapter.name).resolve() == folder.resolve()
    path = str(folder) if "/" in str(folder) else f"./{folder}"
    text = f"{item.adapter.name if found else path}={item.weight!r}"
    return text if re.fullmatch(r"[\w./][\w./=+-]*", text) else json.dumps(text, ensure_ascii=False)


def _made_with() -> str:
    """Return the mark by which a card is known as ours, with the versions that matter."""
    return f"{MARK} with " + ", ".join(f"{name} {found}" for name, found in versions("numpy").items())


def made_from(card: Path) -> Iterator[Adapter | TuneyardError]:
    """Yield each adapter that a card of ours names, or the error where it is gone or changed."""
    text = read_card(card)
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
