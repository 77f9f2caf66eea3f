"""Decide if an adapter was trained on a model, for `adapter fuse`, `eval` and `recipe check` alike."""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from tuneyard.core.errors import ContentError, RequestError, show_value, unexpected
from tuneyard.core.files import HUB_ID, Fields, no_folder, read_object, require
from tuneyard.core.training.training_run import TRAINING, model_sha256, read_once_sha256, training_inputs
from tuneyard.core.weights.tensors import Array, Tensors, Weights, open_weights

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight")
HEADS = ("lm_head.weight",)
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
Shards = dict[str, Weights]
"""Weight files by their name."""
SAME_BASE = "where both are the same model, say so with --same-base"


def check_base(
    adapter: Path,
    trained_on: str | None,
    folder: Path,
    reference: str,
    *,
    same: bool,
    fix: str = SAME_BASE,
) -> str:
    """Refuse an adapter whose config names another base than `folder`, which the user named `reference`.

    `trained_on` is the base in the adapter's config. If it is a folder here, its weight files decide.
    Otherwise the model's hash that the training recorded decides. Without a hash the last part of the name
    decides. The result is then a warning that nothing more could be checked, otherwise "". Nothing is
    compared if the user states that both are the `same`. A 4-bit copy by Unsloth counts as the model that it
    was made from. `folder` may be missing for a hub model, of which the name alone counts.
    """
    if trained_on is None or trained_on == reference or same:
        return ""
    recorded_folder = Path(trained_on)
    wrong = f"adapter {adapter}: trained on {trained_on}"
    is_local = folder.is_dir()
    if is_local and (recorded_folder / "config.json").is_file():
        is_same_folder = recorded_folder.resolve() == folder.resolve()
        if not is_same_folder and _weights_sha256(recorded_folder) != _weights_sha256(folder):
            raise ContentError(
                f"{wrong}, whose weights are not those of {reference}; name {trained_on} as the base; {fix}"
            )
        return ""
    recorded_hash = training_inputs(adapter).get("model", {}).get("sha256")
    if is_local and isinstance(recorded_hash, str):
        if recorded_hash != model_sha256(folder):
            raise ContentError(
                f"{wrong}, whose files had another hash ({recorded_hash[:16]}… in {TRAINING}) than those of "
                f"{reference}; {fix}"
            )
        return ""
    published = folder.resolve()
    if published.parent.name == "snapshots":  # the hub's cache: models--OWNER--NAME/snapshots/COMMIT
        published = Path(published.parent.parent.name.rpartition("--")[2])
    if _plain(trained_on) not in (_plain(reference), _plain(published.name)):
        absent = trained_on if is_local else reference
        raise ContentError(
            f"{wrong}, not on {reference}. {absent} is not a folder on this machine, so that the "
            f"weights of both cannot be compared; {fix}"
        )
    return (
        f"adapter {adapter}: trained on {trained_on}, which is not here: whether {reference} holds "
        f"the same weights could not be checked, only its name (no hash of the model in {TRAINING})"
    )


def _plain(name: str) -> str:
    """Last part of a model's name, without the suffix of Unsloth's 4-bit copies."""
    return re.sub("(-unsloth)?-bnb-4bit$", "", name.rstrip("/").rpartition("/")[2].casefold())


def tensors_of(shards: Shards) -> Tensors:
    """The tensors of several files by name."""
    tensors: Tensors = {}
    for shard in shards.values():
        tensors |= shard.tensors
    return tensors


def _weights_sha256(folder: Path) -> str:
    """One hash over the names and bytes of a model's weight files; `RequestError` if it has none."""
    return read_once_sha256(folder / name for name in open_shards(folder))


def open_shards(folder: Path) -> Shards:
    """Open the weight files of a model folder by name; `RequestError` if it has none in safetensors."""
    if (folder / INDEX).is_file():
        return read_shards(folder / INDEX)
    if (folder / SINGLE).is_file():
        return {SINGLE: open_weights(folder / SINGLE)}
    neither = f"{folder}: neither {SINGLE} nor {INDEX}"
    raise RequestError(f"{neither}; a model in pickle files must be saved as safetensors first")


def read_shards(index: Path) -> Shards:
    """Open the files that a safetensors index names, by name. `ContentError` if index and files disagree."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise unexpected(index, "weight_map", places, "names with their files")
    for place in places.values():
        if not isinstance(place, str) or Path(place).name != place or not place.endswith(".safetensors"):
            raise ContentError(
                f"{index}: file {show_value(place)}: expected a .safetensors name without folders"
            )
    shards = {}
    for file in sorted(set(places.values())):
        path = index.parent / file
        if not path.is_file():
            raise RequestError(f"{index}: it names {path}, which is missing; download or copy it again")
        shard = shards[file] = open_weights(path)
        announced = {name for name, place in places.items() if place == file}
        if announced != shard.tensors.keys():
            name = min(announced ^ shard.tensors.keys())
            where = "the index" if name in announced else "the file"
            raise ContentError(f"{index}: {file}: tensor {name!r} is only in {where}")
    return shards


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


def refuse_adapter(folder: Path) -> None:
    """Raise `RequestError` with the name of the base if the folder of a model has an adapter alone."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file() and not (folder / "config.json").is_file():
        base = read_object(adapter).get("base_model_name_or_path")
        raise RequestError(
            f"{folder}: an adapter, expected a whole model: its base is {base}, and both together are what "
            f"`tuneyard adapter fuse {folder} --base {base} --out DIR` writes"
        )
