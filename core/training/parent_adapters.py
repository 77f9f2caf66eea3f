"""The adapters that LLaMA-Factory merged into the base before a training began, by the training's record.

LLaMA-Factory 0.9.5 (`_setup_lora_tuning` in model/adapter.py) reads `adapter_name_or_path: a,b`. It merges a
into the base and continues b. With `create_new_adapter` it merges both and starts a new adapter. It continues
the only adapter in any case if the base cannot take a merge (quantised, ZeRO-3, Unsloth, KTransformers).

The file of the trained adapter has only its own ΔW: base + ΔW is not the model that was trained.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuneyard.core.errors import ContentError, unexpected
from tuneyard.core.files import are_texts, bundled, read_object, sha256
from tuneyard.core.language.message import _
from tuneyard.core.training.training_run import (
    SETTINGS,
    names_in,
    record_of,
    training_inputs,
    training_settings,
)

KEY = "adapter_name_or_path"
ADAPTERS = "adapters"
"""Key of training.json: name and SHA-256 of each adapter of `adapter_name_or_path`."""
ADAPTER_CONFIG = "adapter_config.json"
MOST_PARENTS = 100
# A DeepSpeed file that is gone counts by its name: ds_z3_config.json, zero3.json, stage_3.json.
ZERO_3 = re.compile(r"(z|zero|stage)[-_]?3")


@dataclass(frozen=True, slots=True)
class ParentAdapter:
    """An adapter below another one. `name` is that of the setting, `folder` is None if it is not here.

    `record` is the file that names it. `weights_sha256` is "" if the training did not record the hash.
    """

    name: str
    folder: Path | None
    record: Path
    weights_sha256: str


def parent_adapters(folder: Path) -> list[ParentAdapter]:
    """The adapters that the training of an adapter merged into its base first. [] if no record names any.

    `ContentError` if the record is damaged.
    """
    record = record_of(folder) or record_of(folder, SETTINGS)
    if record is None:
        return []
    settings = training_settings(folder)
    names = merged_before_training(settings, record)
    if not names:
        return []
    hashes = {}
    for entry in training_inputs(folder).get(ADAPTERS, []):
        hashes[entry["name"]] = entry["sha256"] or ""
    subfolder = str(settings.get("adapter_folder") or "")
    parents = []
    for name in names:
        weights_sha256 = hashes.get(name, "")
        parent_folder = _find(str(Path(name, subfolder)), folder, weights_sha256)
        parents.append(ParentAdapter(name, parent_folder, record, weights_sha256))
    return parents


def merged_before_training(settings: Mapping[str, object], record: Path) -> list[str]:
    """Names of the adapters that LLaMA-Factory merges into the base before it trains with these settings."""
    value = settings.get(KEY)
    if not isinstance(value, str | None) and not (isinstance(value, list) and are_texts(value)):
        raise unexpected(record, KEY, value, _("a name or several with commas"))
    names = names_in(value)
    if len(names) > MOST_PARENTS:
        raise unexpected(record, KEY, value, _("at most {most_parents} names", most_parents=MOST_PARENTS))
    if settings.get("finetuning_type", "lora") not in ("lora", "oft"):
        return []
    if settings.get("create_new_adapter") and not _takes_no_merge(settings):
        return names
    return names[:-1]


def adapter_hashes(settings: Mapping[str, object]) -> list[dict[str, str | None]]:
    """Name and SHA-256 of the weights of each adapter that a training starts from, for training.json.

    The hash is None for an adapter that is not a folder here, or has no weights in safetensors.
    """
    subfolder = str(settings.get("adapter_folder") or "")
    names = names_in(settings.get(KEY))
    return [{"name": name, "sha256": weights_hash(Path(name, subfolder)) or None} for name in names]


def sum_command(adapters: Sequence[str], name: str, base: str | None = None) -> list[str]:
    """Words of the command of the exact sum of an adapter and those below it, each with weight 1.

    The last one is called `name`. `base` is needed for tensors that are saved in full.
    """
    words = ["tuneyard", "adapter", "merge", *(f"{adapter}=1" for adapter in adapters)]
    if base:
        words += ["--base", base]
    return [*words, "--out", f"saves/{name}-sum"]


def fuse_commands(adapters: Sequence[str], name: str, base: str) -> tuple[list[str], list[str]]:
    """Words of the commands that fuse an adapter which is no part of a sum: those below it, then it alone."""
    *parents, adapter = adapters
    below = f"models/below-{name}"
    first = ["tuneyard", "adapter", "fuse", *parents, "--base", base, "--dtype", "fp32", "--out", below]
    second = ["tuneyard", "adapter", "fuse", adapter, "--base", below, "--same-base"]
    return first, [*second, "--out", f"models/{name}"]


def path_word(path: str) -> str:
    """A path as a word of a command, which would look for a bare name under saves/ first."""
    return path if "/" in path else f"./{path}"


def weights_hash(folder: Path) -> str:
    """SHA-256 of the weights of an adapter, of several files as if they were one; "" without any."""
    files = sorted(folder.glob("adapter_model*.safetensors"))
    return sha256(*files) if files else ""


def _takes_no_merge(settings: Mapping[str, object]) -> bool:
    """True if LLaMA-Factory continues the only adapter even with `create_new_adapter`."""
    for setting in ("quantization_bit", "use_unsloth", "use_kt"):
        if settings.get(setting):
            return True
    base = settings.get("model_name_or_path")
    config = Path(base) / "config.json" if isinstance(base, str) else None
    if config is not None and config.is_file() and read_object(config).get("quantization_config"):
        return True
    return _is_zero_3(settings.get("deepspeed"))


def _is_zero_3(deepspeed: object) -> bool:
    content = deepspeed
    if isinstance(deepspeed, str):
        file = bundled(Path(deepspeed))
        if not file.is_file():
            return ZERO_3.search(file.name.lower()) is not None
        try:
            content = read_object(file)
        except ContentError:  # changed since the training, which read another one
            return ZERO_3.search(file.name.lower()) is not None
    if not isinstance(content, dict):
        return False
    zero = content.get("zero_optimization")
    return isinstance(zero, dict) and zero.get("stage") == 3


def last_parts(name: str) -> tuple[str, ...]:
    """The last part of a path of any system, for a checkpoint the last two: its own name is no name."""
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    count = 2 if parts and parts[-1].startswith("checkpoint-") else 1
    return tuple(parts[-count:])


def _find(name: str, child: Path, weights_sha256: str) -> Path | None:
    """The folder of a parent, if possible one with the recorded hash; None if there is none.

    A relative name begins at the folder of the training: this one, or one above the trained adapter. A
    folder that moved together with the adapter is next to it.
    """
    first = None
    for folder in _candidates(name, child):
        if not _is_adapter(folder) or folder.resolve() == child.resolve():
            continue
        if weights_sha256 and weights_hash(folder) == weights_sha256:
            return folder
        first = first or folder
    return first


def _candidates(name: str, child: Path) -> Iterator[Path]:
    yield Path(name)
    above = child.resolve().parents
    for root in above:
        yield root / name
    for root in above[:2]:  # the second for a checkpoint
        yield root.joinpath(*last_parts(name))


def _is_adapter(folder: Path) -> bool:
    with contextlib.suppress(OSError, ValueError):  # a recorded text that is no path
        return (folder / ADAPTER_CONFIG).is_file()
    return False
