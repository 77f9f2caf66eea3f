"""merge.json: the adapters, weights and base from which `merge` or `fuse` made a folder; and its README.md.

The check for training examples, `adapter show` and the card of the hub read merge.json. The card (README.md)
is written from it for people. No command reads that, so anybody may format or extend it.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.adapters.model.adapter import Adapter
from tuneyard.adapters.model.store import SAVES, kinds, open_any
from tuneyard.adapters.model.weighted import Weighted
from tuneyard.adapters.model.weights import weight_text
from tuneyard.core.errors import ContentError, TuneyardError
from tuneyard.core.files import versions
from tuneyard.core.installation.checkout import version
from tuneyard.core.language.message import _, message_of
from tuneyard.core.records.training_record import TrainedDataset
from tuneyard.core.text.markdown import markdown_table
from tuneyard.core.text.quoting import markdown_block, markdown_code, markdown_text
from tuneyard.core.training.training_run import read_provenance, training_data
from tuneyard.core.weights.adapter_files import WEIGHTS
from tuneyard.core.weights.base_models import Base

CARD = "README.md"
EXACT_SUM = "exact sum"  # in merge.json: the written adapter was compared with the sum itself
FULL_RANK = "method's result of full rank"  # in merge.json: the error is what the rank cuts off
Datasets = list[TrainedDataset]
"""Training datasets of one adapter: their names, files and hashes, as merge.json lists them."""
HEADER = ["adapter", "weight", "rank", f"SHA-256 of {WEIGHTS}", "digest (weights and config)"]
SCALES = "Scales and weights are folded into B: alpha equals the rank, so the file's own scale is 1."


@dataclass(frozen=True, slots=True)
class MergePart:
    """An adapter in a merge: its entry in merge.json, and the opened adapter or the `problem` with it."""

    entry: Mapping[str, Any]
    adapter: Adapter | None
    problem: str = ""


def provenance(
    command: str,
    weighted: Sequence[Weighted[Adapter]],
    datasets: Sequence[Datasets],
    base: Base | None,
    details: Mapping[str, object],
) -> dict[str, Any]:
    """The content of merge.json. `details` are the fields of only one of the two commands."""
    folder = base.folder if base else None
    adapters = []
    for item, adapter_datasets in zip(weighted, datasets, strict=True):
        adapter = item.adapter
        adapters.append(
            {
                "name": adapter.name,
                "folder": str(adapter.folder),
                "weight": str(item.layers) if item.layers else item.weight,
                "rank": adapter.config.rank,
                "weights_sha256": adapter.weights_sha256,
                "digest": adapter.digest,
                "datasets": adapter_datasets,
            }
        )
    return {
        "command": command,
        **details,
        "base": {"name": base_name(weighted, folder), "folder": str(folder) if folder else None},
        "adapters": adapters,
        "versions": versions("numpy"),
        "tuneyard": version(),
    }


def base_name(weighted: Sequence[Weighted[Adapter]], base: Path | None) -> str | None:
    """The base's name in the adapters' configs, or its folder if the names differ; None without a name."""
    names = [item.adapter.config.base for item in weighted if item.adapter.config.base]
    if not names:
        return None
    if base and len(set(names)) > 1:
        return str(base)
    return names[0]


def open_parts(record: Mapping[str, Any]) -> list[MergePart]:
    """Open the adapters of a merge again. A part that is gone or has changed has its entry alone."""
    parts = []
    for entry in record["adapters"]:
        try:
            adapter = open_any(Path(entry["folder"]))
        except TuneyardError as error:
            parts.append(MergePart(entry, None, message_of(error)))
            continue
        if adapter.digest == entry["digest"]:
            parts.append(MergePart(entry, adapter))
        else:
            parts.append(
                MergePart(entry, None, _("{path} changed since it was merged", path=entry["folder"]))
            )
    return parts


def training_datasets(folder: Path) -> Datasets:
    """The datasets that an adapter was trained on. A merge has the datasets of its parts."""
    try:
        datasets = training_data(folder)
        if datasets:
            return datasets
        record = read_provenance(folder)
    except ContentError:  # a damaged record names no datasets, and does not stop a merge
        return []
    if record is None:
        return []
    merged: Datasets = []
    for entry in record["adapters"]:
        for dataset in entry["datasets"]:
            if dataset not in merged:
                merged.append(dataset)
    return merged


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


def fused_kind(record: Mapping[str, Any]) -> type[Adapter]:
    """The kind of the adapters in a merge.json: LoRA, or the kind without ranks, which is fused alone."""
    has_ranks = record["adapters"][0]["rank"] is not None
    return next(kind for kind in kinds() if has_ranks == kind.HAS_RANKS)


def card_body(record: Mapping[str, Any]) -> str:
    """The card from its title on, without the `#` of the heading."""
    weights = [
        markdown_text(f"{entry['name']} ({weight_text(entry['weight'])})") for entry in record["adapters"]
    ]
    packages = [f"{name} {version}" for name, version in record["versions"].items()]
    written_by = f"written by Tuneyard with {markdown_text(', '.join(packages))}"
    adapters = []
    for entry in record["adapters"]:
        weight, rank = weight_text(entry["weight"]), str(entry["rank"] or "–")
        hashes = markdown_code(entry["weights_sha256"]), markdown_code(entry["digest"])
        adapters.append([entry["name"], weight, rank, *hashes])
    result = record["result"]
    if record["command"] == "merge":
        title = f"Merge of {' and '.join(weights)}"
        formula = "ΔW = Σ weight · scale · B·A, method"
        if result["compared_with"] != EXACT_SUM:
            formula = "Merged by method"
        method = markdown_code(record["method"])
        introduction = f"{formula} {method}, rank {result['rank']}, {written_by}.\n{SCALES}"
        paragraphs = _merge_result(record["method"], result)
    else:
        base = Path(record["base"]["folder"]).resolve().name
        if re.fullmatch("[0-9a-f]{40}", base) and record["base"]["name"]:
            base = record["base"]["name"]  # the hub's cache names folders after commits
        title = f"{markdown_text(base)} with {' and '.join(weights)}"
        quantised = ""
        if record["base_as"]:
            quantised = f" as {markdown_text(record['base_as'])} gives it back"
        change = fused_kind(record).CHANGE
        introduction = f"The base{quantised} {change}, rounded once, {written_by}."
        paragraphs = _fuse_result(result)
    recipe = markdown_block(recipe_text(record), "yaml")
    return "\n\n".join([title, introduction, recipe, markdown_table(HEADER, adapters), *paragraphs]) + "\n"


def _merge_result(method: str, result: Mapping[str, Any]) -> list[str]:
    error = scientific(result["error"])
    sentence = f"Relative Frobenius error against the exact sum: {error} in all."
    if result["compared_with"] != EXACT_SUM:
        sentence = (
            f"{markdown_code(method)} is not the weighted sum. Relative Frobenius error of the written file "
            f"against the {result['compared_with']}: {error} in all."
        )
    rows = []
    for path, module in result["modules"].items():
        rows.append([path, f"{module['norm']:.4g}", scientific(module["error"])])
    return [sentence, markdown_table(["module", _("norm of ΔW"), "relative error"], rows)]


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
        lines.append(f"method: {_yaml_text(record['method'])}")
        for name, value in record["parameters"].items():
            if value is not None:
                lines.append(f"{_yaml_text(name)}: {value!r}")
        if record["dtype"] != "fp32":
            lines.append(f"dtype: {_yaml_text(str(record['dtype']))}")
        if record["base"]["folder"] is not None:
            lines.append(f"base: {json.dumps(record['base']['folder'])}")
    lines.append("adapters:")
    for entry in record["adapters"]:
        reference = entry["folder"]
        if (SAVES / entry["name"]).resolve() == Path(reference).resolve():
            reference = entry["name"]
        elif "/" not in reference:  # a bare name would be looked for under saves/
            reference = f"./{reference}"
        item = f"{reference}={entry['weight']}"
        lines.append(f"  - {_yaml_text(item)}")
    return "\n".join(lines) + "\n"


def _yaml_text(text: str) -> str:
    """Write a text in YAML, in quotes if one of its characters may be syntax."""
    if re.fullmatch(r"[\w./][\w./=+-]*", text):
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())
