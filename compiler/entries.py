"""What dataset_info.json says of a written file, so that LLaMA-Factory reads it as it was meant."""

from collections.abc import Sequence

from compiler.kinds import KTO, RECORDED
from compiler.spec import Output, Spec
from core.prompt import ALPACA

Entry = dict[str, object]
TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "observation_tag": "observation",
    "function_tag": "function_call",
    "system_tag": "system",
}
_MESSAGES = TAGS | {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
}


def entry_of(spec: Spec, output: Output, file_name: str) -> Entry:
    """Return the registry entry of a dataset, with complete `columns` (and `tags`) for LLaMA-Factory."""
    if output.format == "text":
        return {"file_name": file_name, "formatting": "alpaca", "columns": {"prompt": output.field}}
    beside = {
        "kto_tag" if column.kind == KTO else column.kind: column.name
        for column in spec.columns
        if column.kind in RECORDED
    }
    ranking = {"ranking": True} if "chosen" in beside else {}
    if output.format == "alpaca":
        extras = [name for name in ("system",) if name in output.templates]
        extras += ["history"] if output.turns == "history" else []
        columns = ALPACA | {name: name for name in extras} | beside
        if ranking:
            del columns["response"]
        return {**ranking, "file_name": file_name, "formatting": "alpaca", "columns": columns}
    names = {column.name for column in spec.columns} | set(output.templates)
    wanted = ("system", "tools") if output.format == "sharegpt" else ("tools",)
    columns = {"messages": output.field} | {name: name for name in wanted if name in names} | beside
    tags = TAGS if output.format == "sharegpt" else _MESSAGES
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
