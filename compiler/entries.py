"""What dataset_info.json says of a written file, so that LLaMA-Factory reads it as it was meant."""

from collections.abc import Sequence

from compiler.kinds import KTO, RECORDED
from compiler.spec import Output, Spec
from core.prompt import ALPACA, OPENAI_TAGS, SHAREGPT_TAGS

Entry = dict[str, object]


def entry_of(spec: Spec, output: Output, file_name: str) -> Entry:
    """Return the registry entry of a dataset, with complete `columns` (and `tags`) for LLaMA-Factory."""
    if output.format == "text":
        return {"file_name": file_name, "formatting": "alpaca", "columns": {"prompt": output.field}}
    kinds = {name: kind for name, kind in spec.kinds.items() if kind in RECORDED}
    beside = {"kto_tag" if kind == KTO else kind: name for name, kind in kinds.items()}
    ranking = {"ranking": True} if "chosen" in beside else {}
    if output.format == "alpaca":
        columns = ALPACA | ({"system": "system"} if "system" in output.templates else {})
        columns |= ({"history": "history"} if output.turns == "history" else {}) | beside
        if ranking:
            del columns["response"]
        return {**ranking, "file_name": file_name, "formatting": "alpaca", "columns": columns}
    names = spec.kinds | output.templates
    wanted = ("system", "tools") if output.format == "sharegpt" else ("tools",)
    columns = {"messages": output.field} | {name: name for name in wanted if name in names} | beside
    tags = SHAREGPT_TAGS if output.format == "sharegpt" else OPENAI_TAGS
    return {**ranking, "file_name": file_name, "formatting": "sharegpt", "tags": tags, "columns": columns}


def entries_of(spec: Spec, splits: Sequence[str]) -> dict[str, Entry]:
    """Return the registry entries of these splits of a spec, by dataset name."""
    return {
        output.dataset.format(split=split): entry_of(
            spec, output, f"{spec.name}/{output.file.format(split=split)}"
        )
        for split in splits
        for output in spec.outputs
        if output.dataset
    }
