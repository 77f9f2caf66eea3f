"""A base model: its folder, its weight files, and the names of its tensors in them and in the model."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tuneyard.core.errors import RequestError
from tuneyard.core.files import HUB_ID, Fields, no_folder, read_object, require
from tuneyard.core.weights.adapter_files import EMBEDDINGS, HEADS, refuse_adapter
from tuneyard.core.weights.tensors import Array, Shards, Tensors, Weights, open_shards, tensors_of

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
        text = self.config.get("text_config")
        nested = text.get("tie_word_embeddings") if isinstance(text, dict) else None
        return bool(self.config.get("tie_word_embeddings", nested))

    @property
    def _renamed(self) -> tuple[tuple[str, str], ...]:
        return STORED_AS.get(str(self.config.get("model_type")), ())

    def stored_name(self, name: str) -> str:
        """Name of a model's tensor in the checkpoint. `name` itself if the checkpoint has none."""
        if name in self.tensors:
            return name
        for new, stored in self._renamed:
            renamed = stored + name.removeprefix(new)
            if name.startswith(new) and renamed in self.tensors:
                return renamed
        return name

    def module_name(self, stored: str) -> str:
        """Name of a stored tensor in the model, the inverse of `stored_name`."""
        if any(stored.startswith(new) for new, _ in self._renamed):
            return stored
        for new, old in self._renamed:
            if stored.startswith(old):
                return new + stored.removeprefix(old)
        return stored

    def find(self, name: str) -> str | None:
        """Stored name of a tensor. A tied head has the embedding's. None if the checkpoint has neither."""
        stored = self.stored_name(name)
        if stored in self.tensors:
            return stored
        if self.tied and name.endswith(HEADS):
            for other in self.tensors:
                if other.endswith(EMBEDDINGS):
                    return other
        return None

    def read(self, name: str) -> Array:
        """Read a tensor as fp32, by its stored name."""
        return Weights(self.folder, self.tensors).read(name)


def open_base(folder: Path) -> Base:
    """Open a model folder and check every shard's header. `ContentError` names a damaged file."""
    config = read_object(base_config(folder))
    return Base(folder, config, open_shards(folder))


def base_config(folder: Path) -> Path:
    """Path of a base's config.json. `RequestError` if the folder is missing, an adapter, or no model."""
    if not folder.is_dir():
        fix = "name the folder of a whole model"
        if HUB_ID.fullmatch(str(folder)):
            fix = f"if it is on the hub: hf download {folder} --local-dir models/{folder.name}"
        raise RequestError(f"base model {no_folder(str(folder), fix)}")
    refuse_adapter(folder)
    return require(folder / "config.json", "the config of a whole model")
