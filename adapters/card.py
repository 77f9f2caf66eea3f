"""The card (README.md) of a merged adapter or a fused model, written from its merge.json alone.

It is for people: no command reads it, so that anybody may format or extend it.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneyard.adapters.store import SAVES, WEIGHTS
from tuneyard.core.documents import markdown_table

CARD = "README.md"
HEADER = ["adapter", "weight", "rank", f"SHA-256 of {WEIGHTS}", "digest (weights and config)"]
SCALES = "Scales and weights are folded into B: alpha equals the rank, so the file's own scale is 1."


def card_text(record: Mapping[str, Any]) -> str:
    """The whole card: front matter of the hub, and the body."""
    base = record["base"]["name"]
    if base is None:
        front = "# base_model: not named by the adapters"
    else:
        front = f"base_model: {base if re.fullmatch(r'[A-Za-z0-9_./-]+', base) else json.dumps(base)}"
    head = "library_name: peft\ntags: [lora, merge]"
    if record["command"] == "fuse":
        head = "tags: [lora, fused]"
    return f"---\n{front}\n{head}\n---\n\n# {card_body(record)}"


def card_body(record: Mapping[str, Any]) -> str:
    """The card from its title on, without the mark of a heading."""
    merged = record["command"] == "merge"
    weights = [f"{entry['name']} ({entry['weight']:g})" for entry in record["adapters"]]
    title = f"Merge of {' and '.join(weights)}"
    if not merged:
        title = f"{Path(record['base']['folder']).resolve().name} with {' and '.join(weights)}"
    introduction = _merge_introduction(record) if merged else _fuse_introduction(record)
    rows = [
        [
            entry["name"],
            f"{entry['weight']:g}",
            str(entry["rank"]),
            f"`{entry['weights_sha256']}`",
            f"`{entry['digest']}`",
        ]
        for entry in record["adapters"]
    ]
    result = _merge_result(record) if merged else _fuse_result(record)
    recipe = f"```yaml\n{_recipe(record)}```"
    return "\n\n".join([title, introduction, recipe, markdown_table(HEADER, rows), *result]) + "\n"


def _made_with(record: Mapping[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    return f"written by Tuneyard with {packages}"


def _merge_introduction(record: Mapping[str, Any]) -> str:
    rank = record["result"]["rank"]
    return (
        f"ΔW = Σ weight · scale · B·A, method `{record['method']}`, rank {rank}, "
        f"{_made_with(record)}.\n{SCALES}"
    )


def _fuse_introduction(record: Mapping[str, Any]) -> str:
    as_nf4 = f" as {record['base_as']} gives it back" if record["base_as"] else ""
    return f"The base{as_nf4} plus ΔW = Σ weight · scale · B·A, rounded once, {_made_with(record)}."


def _merge_result(record: Mapping[str, Any]) -> list[str]:
    result = record["result"]
    error = scientific(result["error"])
    sentence = f"Relative Frobenius error against the exact sum: {error} in all."
    if result["compared_with"] != "exact sum":
        sentence = (
            f"`{record['method']}` is not the weighted sum. Relative Frobenius error of the written file "
            f"against the method's result (rounding): {error} in all."
        )
    rows = []
    for path, module in result["modules"].items():
        rows.append([path, f"{module['norm']:.4g}", scientific(module["error"])])
    return [sentence, markdown_table(["module", "norm of ΔW", "relative error"], rows)]


def _fuse_result(record: Mapping[str, Any]) -> list[str]:
    result = record["result"]
    sentence = (
        f"After rounding: retained fraction of ΔW {result['retained']:.1%}, relative Frobenius error "
        f"{scientific(result['error'])},\nunchanged elements {result['unchanged']:.1%}."
    )
    rows = []
    for path, module in result["modules"].items():
        unchanged = f"{module['unchanged']:.1%}"
        rows.append([path, f"{module['retained']:.1%}", scientific(module["error"]), unchanged])
    header = ["module", "retained fraction of ΔW", "relative error", "unchanged"]
    return [sentence, markdown_table(header, rows)]


def scientific(error: float | None) -> str:
    """A relative error with three digits; an error that is no number has none."""
    return "inf" if error is None else f"{error:.2e}"


def _recipe(record: Mapping[str, Any]) -> str:
    """The merge as a YAML file that `tuneyard adapter merge` takes; of fuse its adapters."""
    lines = []
    if record["command"] == "merge":
        lines.append(f"method: {record['method']}")
        for name, value in record["parameters"].items():
            if value is not None:
                lines.append(f"{name}: {value!r}")
        if record["dtype"] != "fp32":
            lines.append(f"dtype: {record['dtype']}")
        if record["base"]["folder"] is not None:
            lines.append(f"base: {json.dumps(record['base']['folder'])}")
    lines.append("adapters:")
    lines.extend(f"  - {_item(entry)}" for entry in record["adapters"])
    return "\n".join(lines) + "\n"


def _item(entry: Mapping[str, Any]) -> str:
    """`NAME=WEIGHT`, or the folder's path if the name alone would not find it."""
    folder = entry["folder"]
    reference = folder if "/" in folder else f"./{folder}"
    if (SAVES / entry["name"]).resolve() == Path(folder).resolve():
        reference = entry["name"]
    text = f"{reference}={entry['weight']!r}"
    return text if re.fullmatch(r"[\w./][\w./=+-]*", text) else json.dumps(text, ensure_ascii=False)
