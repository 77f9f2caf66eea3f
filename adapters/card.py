"""Write the card (README.md) of a merged adapter or a fused model from its merge.json.

The card is for people. No command reads it, so anybody may format or extend it.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneyard.adapters.kinds import fused_kind
from tuneyard.adapters.store import SAVES
from tuneyard.core.documents import markdown_table
from tuneyard.core.weights.adapter_files import WEIGHTS

CARD = "README.md"
EXACT_SUM = "exact sum"  # in merge.json: the written adapter was compared with the sum itself
HEADER = ["adapter", "weight", "rank", f"SHA-256 of {WEIGHTS}", "digest (weights and config)"]
SCALES = "Scales and weights are folded into B: alpha equals the rank, so the file's own scale is 1."


def model_card(front: Mapping[str, Any], body: str) -> str:
    """A card with the front matter that the Hugging Face Hub reads; None leaves a field out."""
    from huggingface_hub import ModelCardData

    return f"---\n{ModelCardData(**front).to_yaml()}\n---\n\n{body}"


def card_text(record: Mapping[str, Any]) -> str:
    """The whole card: front matter for the Hugging Face Hub, then the body."""
    front = {"base_model": record["base"]["name"], "library_name": "peft", "tags": ["lora", "merge"]}
    if record["command"] == "fuse":
        front |= {"library_name": None, "tags": [fused_kind(record).TAG, "fused"]}
    return model_card(front, f"# {card_body(record)}")


def card_body(record: Mapping[str, Any]) -> str:
    """The card from its title on, without the `#` of the heading."""
    weights = [f"{entry['name']} ({entry['weight']:g})" for entry in record["adapters"]]
    packages = [f"{name} {version}" for name, version in record["versions"].items()]
    written_by = f"written by Tuneyard with {', '.join(packages)}"
    adapters = []
    for entry in record["adapters"]:
        weight, rank = f"{entry['weight']:g}", str(entry["rank"] or "–")
        hashes = f"`{entry['weights_sha256']}`", f"`{entry['digest']}`"
        adapters.append([entry["name"], weight, rank, *hashes])
    result = record["result"]
    if record["command"] == "merge":
        title = f"Merge of {' and '.join(weights)}"
        formula = "ΔW = Σ weight · scale · B·A, method"
        if result["compared_with"] != EXACT_SUM:
            formula = "Merged by method"
        introduction = f"{formula} `{record['method']}`, rank {result['rank']}, {written_by}.\n{SCALES}"
        paragraphs = _merge_result(record["method"], result)
    else:
        base = Path(record["base"]["folder"]).resolve().name
        title = f"{base} with {' and '.join(weights)}"
        quantised = ""
        if record["base_as"]:
            quantised = f" as {record['base_as']} gives it back"
        change = fused_kind(record).CHANGE
        introduction = f"The base{quantised} {change}, rounded once, {written_by}."
        paragraphs = _fuse_result(result)
    recipe = f"```yaml\n{recipe_text(record)}```"
    return "\n\n".join([title, introduction, recipe, markdown_table(HEADER, adapters), *paragraphs]) + "\n"


def _merge_result(method: str, result: Mapping[str, Any]) -> list[str]:
    error = scientific(result["error"])
    sentence = f"Relative Frobenius error against the exact sum: {error} in all."
    if result["compared_with"] != EXACT_SUM:
        sentence = (
            f"`{method}` is not the weighted sum. Relative Frobenius error of the written file "
            f"against the method's result (rounding): {error} in all."
        )
    rows = []
    for path, module in result["modules"].items():
        rows.append([path, f"{module['norm']:.4g}", scientific(module["error"])])
    return [sentence, markdown_table(["module", "norm of ΔW", "relative error"], rows)]


def _fuse_result(result: Mapping[str, Any]) -> list[str]:
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
    """A relative error with three digits. merge.json has null for infinity."""
    if error is None:
        return "inf"
    return f"{error:.2e}"


def recipe_text(record: Mapping[str, Any]) -> str:
    """The merge as a YAML file for `tuneyard adapter merge`. For fuse it lists the adapters."""
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
    for entry in record["adapters"]:
        reference = entry["folder"]
        if (SAVES / entry["name"]).resolve() == Path(reference).resolve():
            reference = entry["name"]
        elif "/" not in reference:  # a bare name would be looked for under saves/
            reference = f"./{reference}"
        item = f"{reference}={entry['weight']!r}"
        lines.append(f"  - {_yaml_text(item)}")
    return "\n".join(lines) + "\n"


def _yaml_text(text: str) -> str:
    """Write a text in YAML, in quotes if one of its characters may be syntax."""
    if re.fullmatch(r"[\w./][\w./=+-]*", text):
        return text
    return json.dumps(text, ensure_ascii=False)
