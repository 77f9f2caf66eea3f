"""A base model: its folder, its weight files, and the names of its tensors in them and in the model."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import HUB_ID, Fields, no_folder, read_object, require
from tuneyard.core.language.message import _
from tuneyard.core.text.quoting import shell
from tuneyard.core.weights.adapter_files import EMBEDDINGS, HEADS, refuse_adapter
from tuneyard.core.weights.class_defaults import TIE, class_entry, is_conv1d, is_tied, tied_names
from tuneyard.core.weights.tensors import (
    INDEX,
    SINGLE,
    Array,
    Shards,
    Tensors,
    Weights,
    have_equal_bytes,
    open_shards,
    tensors_of,
)

# Vision-language models whose checkpoints keep other names than their modules have: (module, stored) prefixes
# by model type. Transformers renames so on loading (conversion_mapping.py; a test holds both equal).
_LLAVA = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    *(
        (f"model.{part}.", f"{part}.")
        for part in ("vision_tower", "vision_model", "image_tower", "video_tower", "multi_modal_projector")
    ),
)
_QWEN = (("model.language_model.", "model."), ("model.visual.", "visual."))
STORED_AS = {
    "qwen2_vl": _QWEN, "qwen2_5_vl": _QWEN,
    **dict.fromkeys(
        ("aya_vision", "gemma3", "got_ocr2", "internvl", "llava", "llava_next", "llava_next_video",
         "llava_onevision", "mistral3", "mllama", "paligemma", "pp_chart2table", "shieldgemma2",
         "video_llava", "vipllava"), _LLAVA,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Base:
    """A checked model folder; `shards` are its weight files by name, in the order of their names."""

    folder: Path
    config: Fields
    shards: Shards

    @cached_property
    def tensors(self) -> Tensors:
        """Every tensor by name."""
        return tensors_of(self.shards)

    @property
    def tied(self) -> bool:
        """True if the output head shares the weight of the input embedding."""
        return bool(self.ties)

    @cached_property
    def ties(self) -> dict[str, str]:
        """{head: embedding} of those that share a weight, by their names in the checkpoint.

        A checkpoint with both, of different values, is read as two weights, as transformers reads it.
        """
        if not is_tied(self.config):
            return {}
        return {head: table for head, table in self._pairs.items() if self._can_share(head, table)}

    @cached_property
    def tables(self) -> frozenset[str]:
        """Stored names of the embedding and the head, of which the checkpoint may lack one."""
        names = {*self._pairs, *self._pairs.values()}
        return frozenset(names | {name for name in self.tensors if name.endswith((*EMBEDDINGS, *HEADS))})

    def require_tying(self, changed: Iterable[str]) -> None:
        """`ContentError` if tensors change whose sharing neither the config nor a class in the table decides.

        A head that the checkpoint has needs no decision: it is written as it is, or changed alone.
        """
        if is_tied(self.config) is not None or not self.tables.intersection(changed):
            return
        for head in self._pairs:
            if head not in self.tensors:
                path, kind = self.folder / "config.json", show_value(self.config.get("model_type"))
                raise ContentError(
                    _(
                        "{path}: no {tie}, and model_type {kind} is none of transformers' own, whose default "
                        'is known: add "{tie}": true if {head} shares the weight of the embedding, otherwise '
                        '"{tie}": false',
                        path=path,
                        tie=TIE,
                        kind=kind,
                        head=head,
                    )
                )

    @cached_property
    def _pairs(self) -> dict[str, str]:
        """{head: embedding} that the class can tie. A class that is not in the table has the usual names."""
        names = tied_names(self.config)
        if names or class_entry(self.config):
            return {self.stored_name(head): self.stored_name(table) for head, table in names.items()}
        for name in self.tensors:
            if name.endswith(EMBEDDINGS):
                heads = [other for other in self.tensors if other.endswith(HEADS)]
                return {(heads or HEADS)[0]: name}
        return {}

    def _can_share(self, head: str, table: str) -> bool:
        tensors = self.tensors
        if head in tensors and table in tensors:
            return have_equal_bytes(tensors[head], tensors[table])
        return head in tensors or table in tensors

    def is_transposed(self, path: str) -> bool | None:
        """True if the checkpoint has a linear layer's weight as [inputs, outputs] (GPT-2's Conv1D).

        None if the class is not in the table. PEFT asks the class too, whatever `fan_in_fan_out` says.
        """
        if not class_entry(self.config):
            return None
        return is_conv1d(self.config) and self.stored_name(f"{path}.weight") not in self.tables

    @property
    def _renamed(self) -> tuple[tuple[str, str], ...]:
        return STORED_AS.get(str(self.config.get("model_type")), ())

    @cached_property
    def _left_out(self) -> str:
        """The prefix of the inner model (`transformer.`), which GPT-2's and Bloom's checkpoints leave out."""
        prefix = class_entry(self.config).get("prefix")
        if not prefix or any(name.startswith(f"{prefix}.") for name in self.tensors):
            return ""
        return f"{prefix}."

    def stored_name(self, name: str) -> str:
        """Name of a model's tensor in the checkpoint. `name` itself if the checkpoint has none."""
        if name in self.tensors:
            return name
        for new, stored in self._renamed:
            renamed = stored + name.removeprefix(new)
            if name.startswith(new) and renamed in self.tensors:
                return renamed
        if self._left_out and name.startswith(self._left_out):
            shortened = name.removeprefix(self._left_out)
            if shortened in self.tensors:
                return shortened
        return name

    def module_name(self, stored: str) -> str:
        """Name of a stored tensor in the model, the inverse of `stored_name`."""
        if any(stored.startswith(new) for new, _unused in self._renamed):
            return stored
        for new, old in self._renamed:
            if stored.startswith(old):
                return new + stored.removeprefix(old)
        if stored in tied_names(self.config):
            return stored
        return self._left_out + stored

    def find(self, name: str) -> str | None:
        """Stored name of a tensor, None if the checkpoint has none.

        A tied tensor that the checkpoint lacks has the name of the other.
        """
        stored = self.stored_name(name)
        if stored in self.tensors:
            return stored
        for head, table in self.ties.items():
            if stored in (head, table):
                return table if table in self.tensors else head
        return None

    def read(self, name: str) -> Array:
        """Read a tensor as fp32, by its stored name."""
        return Weights(self.folder, self.tensors).read(name)


def open_base(folder: Path) -> Base:
    """Open a model folder and check every shard's header. `ContentError` names a damaged file."""
    config = read_object(base_config(folder))
    return Base(folder, config, open_shards(folder))


def has_weights(folder: Path) -> bool:
    """True if a base has weights in safetensors."""
    return any((folder / file).is_file() for file in (SINGLE, INDEX))


def base_config(folder: Path) -> Path:
    """Path of a base's config.json. `RequestError` if the folder is missing, an adapter, or no model."""
    if not folder.is_dir():
        fix: str = _("name the folder of a whole model")
        if HUB_ID.fullmatch(str(folder)):
            command = f"hf download {shell(folder)} --local-dir models/{shell(folder.name)}"
            fix = _("if it is on the hub: {command}", command=command)
        raise RequestError(_("base model {problem}", problem=no_folder(str(folder), fix)))
    refuse_adapter(folder)
    return require(folder / "config.json", _("the config of a whole model"))
