"""Registry entries of the files that a spec writes, so that LLaMA-Factory reads them rightly."""

from collections.abc import Collection

from tuneyard.compiler.spec.model import Output, Spec
from tuneyard.core.datasets.compiled import Entries, Entry
from tuneyard.core.records import ALPACA, OPENAI_TAGS, SHAREGPT_TAGS


def entry_of(spec: Spec, output: Output, file_name: str) -> Entry:
    """The registry entry of a dataset, with complete `columns` (and `tags`) for LLaMA-Factory."""
    if output.format == "text":
        return {"file_name": file_name, "formatting": "alpaca", "columns": {"prompt": output.field}}
    recorded_keys = {column_type.registry_key: name for name, column_type in spec.recorded.items()}
    has_pair = any(column_type.is_pair() for column_type in spec.recorded.values())
    entry: Entry = {}
    if has_pair:
        entry["ranking"] = True
    entry["file_name"] = file_name
    if output.format == "alpaca":
        columns = dict(ALPACA)
        if has_pair:
            del columns["response"]
        if "system" in output.templates:
            columns["system"] = "system"
        if output.turns == "history":
            columns["history"] = "history"
        return {**entry, "formatting": "alpaca", "columns": columns | recorded_keys}
    columns = {"messages": output.field}
    names = spec.types | output.templates
    if output.format == "sharegpt" and "system" in names:
        columns["system"] = "system"
    if "tools" in names:
        columns["tools"] = "tools"
    tags = SHAREGPT_TAGS if output.format == "sharegpt" else OPENAI_TAGS
    return {**entry, "formatting": "sharegpt", "tags": tags, "columns": columns | recorded_keys}


def entries_of(spec: Spec, splits: Collection[str] | None = None) -> Entries:
    """The registry entries of a spec by dataset name: those of some `splits`.

    By default it is every split of the spec's own, without those that a source may have.
    """
    if splits is None:
        optional = set(spec.source.held_out).difference(spec.source.files)
        splits = [split for split in spec.splits if split not in optional]
    entries = {}
    for split in spec.splits:
        if split not in splits:
            continue
        for output in spec.outputs:
            if output.dataset:
                file_name = f"{spec.name}/{output.file_of(split)}"
                entries[output.dataset_of(split)] = entry_of(spec, output, file_name)
    return entries
