"""The kinds of adapters, a file each: recognise, read, check against a base, ΔW of a module, show."""

from collections.abc import Mapping
from typing import Any

from tuneyard.adapters.adapter import Adapter
from tuneyard.adapters.kinds.dora import DoraAdapter
from tuneyard.adapters.kinds.lora import LoraAdapter
from tuneyard.adapters.kinds.oft import OftAdapter
from tuneyard.core.errors import ContentError, show_value

KINDS: tuple[type[Adapter], ...] = (LoraAdapter, DoraAdapter, OftAdapter)


def kind_of(raw: Mapping[str, Any], place: object) -> type[Adapter]:
    """The kind of an adapter_config.json; `ContentError` names one that is not supported."""
    for kind in KINDS:
        if kind.recognises(raw):
            return kind
    kind_name = show_value(raw.get("peft_type"))
    raise ContentError(f"{place}: peft_type {kind_name}: only LoRA and OFT adapters are supported")


def fused_kind(record: Mapping[str, Any]) -> type[Adapter]:
    """The kind of the adapters in a merge.json. Only OFT has no rank, and it is fused alone."""
    if record["adapters"][0]["rank"] is None:
        return OftAdapter
    return LoraAdapter
