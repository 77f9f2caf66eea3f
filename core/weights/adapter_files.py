"""The files of an adapter: its weights, the modules that a LoRA changes, and whether a base is its own.

`adapter fuse`, `eval` and `recipe check` refuse an adapter by the same rules (`check_base`,
`ChangedModule.mismatch` and `full_tensor_mismatch`). Of weights this module reads headers only.
"""

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import HUB_ID, Fields, files_sha256, read_object
from tuneyard.core.files.bounded_reading import refuse_pipe
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.text.quoting import shell
from tuneyard.core.training.training_run import TRAINING, model_sha256, training_inputs
from tuneyard.core.weights.tensors import Weights, open_shards, open_weights, read_shards, tensors_of

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
WEIGHTS_INDEX = "adapter_model.safetensors.index.json"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "pytorch_model.bin")
PREFIX = "base_model.model."
EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight")
HEADS = ("lm_head.weight", "embed_out.weight", "output_projection.weight")
SAME_BASE = _("where both are the same model, say so with --same-base")
# Tasks of PEFT whose models have a head of their own, which is saved in the adapter.
OTHER_HEADS = {
    "SEQ_CLS": _("the classification of texts"), "TOKEN_CLS": _("the classification of tokens"),
    "QUESTION_ANS": _("spans in texts"),
}  # fmt: skip
PEFT_CLASSES = {
    "SEQ_CLS": "AutoPeftModelForSequenceClassification", "TOKEN_CLS": "AutoPeftModelForTokenClassification",
    "QUESTION_ANS": "AutoPeftModelForQuestionAnswering",
}  # fmt: skip
LANGUAGE_TASKS = ("CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION")
GATHER = (
    "DeepSpeed ZeRO-3 saved it without gathering the values of all processes; expected its values: set "
    '"stage3_gather_16bit_weights_on_model_save": true in the DeepSpeed file, and train again'
)
"""Cause and fix of tensors that are empty."""
Shape = Sequence[int]
"""The sizes of a tensor."""
PAIRS = {  # file suffixes of A and B by kind of module
    "linear": (".lora_A.weight", ".lora_B.weight"),
    "embedding": (".lora_embedding_A", ".lora_embedding_B"),
}


class ChangedModule(Protocol):
    """What the file of an adapter says of one module that it changes; each kind of adapter has its own."""

    def mismatch(self, path: str, shape: Shape | None, model: object) -> str:
        """Reason why a weight of `shape` cannot be changed, "" if it can.

        `shape` is None if the model, which the message names, has no such module.
        """


class Module(NamedTuple):
    """One adapted module: ΔW = s·B·A with A [rank, inputs] and B [outputs, rank].

    For an embedding, inputs are tokens and its weight [tokens, width] changes by the transpose. `transposed`
    is True for it and for Conv1D layers (fan_in_fan_out).
    """

    kind: str
    outputs: int
    inputs: int
    rank: int
    transposed: bool = False

    @property
    def sizes(self) -> str:
        """Kind and shape, e.g. `linear 256×2048`; adapters can be added only if theirs are equal."""
        return f"{self.kind} {self.outputs}×{self.inputs}"

    @property
    def parameters(self) -> int:
        """Elements of A and B."""
        return self.rank * (self.inputs + self.outputs)

    def mismatch(self, path: str, shape: Shape | None, model: object) -> str:
        """See `ChangedModule`."""
        expected = [self.outputs, self.inputs]
        if self.transposed:
            expected.reverse()
        if shape is None:
            return no_module(path, model)
        if list(shape) != expected:
            return _(
                "{path}: made for a weight of shape {expected}, {model} has {shape}: another "
                "base? Name its own",
                path=path,
                expected=expected,
                model=model,
                shape=list(shape),
            )
        return ""


def no_module(path: str, model: object) -> str:
    """The mismatch of a module that the model does not have."""
    return _("{module}: {model} has no such module: another base? Name its own", module=path, model=model)


def open_weight_files(folder: Path) -> Weights:
    """Open an adapter's weights, whatever the names.

    `ContentError` without any, for damaged or empty ones, and for pickles.
    """
    path, index = folder / WEIGHTS, folder / WEIGHTS_INDEX
    refuse_pipe(path)
    weights = None
    if path.is_file():
        weights = open_weights(path)
    elif index.is_file():
        weights = Weights(index, tensors_of(read_shards(index)))
    if weights is not None:
        for name, tensor in weights.tensors.items():
            if 0 in tensor.shape:
                raise ContentError(
                    _(
                        "{path}: {name}: shape {shape} is empty: {gather}",
                        path=weights.path,
                        name=name,
                        shape=list(tensor.shape),
                        gather=GATHER,
                    )
                )
        return weights
    pickle = find_pickle(folder)
    if pickle is None:
        raise ContentError(
            _(
                "{folder}: {config} without {weights}; training may not have finished: train again, "
                "or name one of its checkpoint folders, if there are any",
                folder=folder,
                config=CONFIG,
                weights=WEIGHTS,
            )
        )
    source, target = json.dumps(str(pickle)), json.dumps(str(path))
    code = (
        "import torch; from safetensors.torch import save_file; "
        f'tensors = torch.load({source}, weights_only=True, map_location="cpu"); '
        f'save_file({{k: v.contiguous() for k, v in tensors.items()}}, {target}, {{"format": "pt"}})'
    )
    raise ContentError(
        _(
            "{path}: a pickle, which could run code when it is loaded; convert it without "
            "running any: python -c {code}",
            path=pickle,
            code=shlex.quote(code),
        )
    )


def find_pickle(folder: Path) -> Path | None:
    """The adapter's weights as torch once pickled them, None if there are none."""
    return next(filter(Path.is_file, map(folder.joinpath, PICKLES)), None)


def adapted_modules(weights: Weights, config: Fields) -> Iterator[tuple[str, Module]]:
    """Pair A and B of every module; `ContentError` if one is missing or the shapes do not match.

    `config` is the adapter's adapter_config.json.
    """
    tensors = weights.tensors
    for key in tensors:
        where = f"{relative(weights.path)}: {key}"
        for kind, (down, up) in PAIRS.items():
            if key.endswith(up) and key.removesuffix(up) + down not in tensors:
                raise ContentError(_("{place}: its A is missing", place=where))
            if not key.endswith(down):
                continue
            stem = key.removesuffix(down)
            if stem + up not in tensors:
                raise ContentError(_("{place}: its B is missing", place=where))
            a, b = tensors[key].shape, tensors[stem + up].shape
            if len(a) != 2 or len(b) != 2:
                raise ContentError(
                    _(
                        "{place}: shape {shape}, expected a matrix (no convolutions)",
                        place=where,
                        shape=list(a),
                    )
                )
            if a[0] != b[1]:
                raise ContentError(
                    _("{place}: A {a} and B {b} do not fit together", place=where, a=list(a), b=list(b))
                )
            transposed = kind == "embedding" or config.get("fan_in_fan_out") is True
            yield stem.removeprefix(PREFIX), Module(kind, b[0], a[1], a[0], transposed)


def unwrapped_tensor(name: str) -> str:
    """Name of a tensor in the base. PEFT wraps modules: `embed_tokens.base_layer.weight`."""
    return name.replace(".base_layer.", ".")


def is_enlarged_table(name: str, shape: Shape, base_shape: Shape) -> bool:
    """True if a tensor is an embedding or a head with more rows (tokens) than the base's."""
    same_width = list(shape[1:]) == list(base_shape[1:])
    return name.endswith((*EMBEDDINGS, *HEADS)) and same_width and list(shape[:1]) > list(base_shape[:1])


def full_tensor_mismatch(
    name: str, shape: Shape, base_shape: Shape | None, model: object, *, may_grow: bool
) -> str:
    """Reason why a tensor that is saved in full cannot take the place of the base's, "" if it can.

    `base_shape` is None if the model, which the message names, has no such tensor. `may_grow`: an embedding
    or a head may have new rows.
    """
    if base_shape is None:
        return _("{name}: {model} has no such tensor: another base? Name its own", name=name, model=model)
    if list(shape) == list(base_shape):
        return ""
    if not is_enlarged_table(name, shape, base_shape):
        return _(
            "{name}: saved with shape {shape}, {model} has {base_shape}: another base? Name its own",
            name=name,
            shape=list(shape),
            model=model,
            base_shape=list(base_shape),
        )
    if may_grow:
        return ""
    return _(
        "{name}: saved with {rows} rows, {model} has {base_rows}: another base, or a larger vocabulary?",
        name=name,
        rows=shape[0],
        model=model,
        base_rows=base_shape[0],
    )


def check_task(place: Path, config: Fields) -> None:
    """`ContentError` for an adapter of a model with another head than that of a language model.

    `config` is the content of its adapter_config.json, `place`.
    """
    task = config.get("task_type")
    if isinstance(task, str) and task in OTHER_HEADS:
        raise ContentError(
            _(
                "{place}: task_type {task}: trained for {other_heads}, with a head that no language "
                "model has; expected CAUSAL_LM, which LLaMA-Factory trains: load this one with "
                "PEFT's {peft_classes}.from_pretrained({parent})",
                place=place,
                task=task,
                other_heads=OTHER_HEADS[task],
                peft_classes=PEFT_CLASSES[task],
                parent=json.dumps(str(place.parent)),
            )
        )
    if task is not None and task not in LANGUAGE_TASKS:
        raise ContentError(
            _(
                "{path}: task_type {value}: unknown; expected {names}: name the one of its training",
                path=place,
                value=show_value(task),
                names=joined(LANGUAGE_TASKS),
            )
        )


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
    wrong = _("adapter {adapter}: trained on {trained_on}", adapter=adapter, trained_on=trained_on)
    is_local = folder.is_dir()
    if is_local and (recorded_folder / "config.json").is_file():
        is_same_folder = recorded_folder.resolve() == folder.resolve()
        if not is_same_folder and _weights_sha256(recorded_folder) != _weights_sha256(folder):
            raise ContentError(
                _(
                    "{wrong}, whose weights are not those of {reference}; name {trained_on} as the base; "
                    "{fix}",
                    wrong=wrong,
                    reference=reference,
                    trained_on=trained_on,
                    fix=fix,
                )
            )
        return ""
    recorded_hash = training_inputs(adapter).get("model", {}).get("sha256")
    if is_local and isinstance(recorded_hash, str):
        if recorded_hash != model_sha256(folder):
            raise ContentError(
                _(
                    "{wrong}, whose files had another hash ({recorded_hash}… in {training}) than those "
                    "of {reference}; {fix}",
                    wrong=wrong,
                    recorded_hash=recorded_hash[:16],
                    training=TRAINING,
                    reference=reference,
                    fix=fix,
                )
            )
        return ""
    if _plain(trained_on) not in (_plain(reference), _plain(str(folder.resolve()))):
        absent = trained_on if is_local else reference
        raise ContentError(
            _(
                "{wrong}, not on {reference}. {absent} is not a folder on this machine, so that the "
                "weights of both cannot be compared; {fix}",
                wrong=wrong,
                reference=reference,
                absent=absent,
                fix=fix,
            )
        )
    return _(
        "adapter {path}: trained on {base}, which is not here: whether {model} holds the "
        "same weights could not be checked, only its name (no hash of the model in {file})",
        path=adapter,
        base=trained_on,
        model=reference,
        file=TRAINING,
    )


def is_same_name(one: str, other: str) -> bool:
    """True if two names may mean one base: their last parts are equal, and the owners of two hub ids."""
    owners = {name.partition("/")[0].casefold() for name in (one, other) if HUB_ID.fullmatch(name)}
    are_ids = HUB_ID.fullmatch(one) and HUB_ID.fullmatch(other)
    return _plain(one) == _plain(other) and not (are_ids and len(owners) > 1)


def _plain(name: str) -> str:
    """Last part of a model's published name, without the suffix of Unsloth's 4-bit copies."""
    last_part = published_name(name).rpartition("/")[2]
    return re.sub("(-unsloth)?-bnb-4bit$", "", last_part.casefold())


def published_name(name: str) -> str:
    """The hub's OWNER/NAME in the name of a base, or NAME alone if a path of another machine has no owner.

    >>> published_name("/home/ann/.cache/huggingface/hub/models--Qwen--Qwen2.5-0.5B/snapshots/0605/")
    'Qwen/Qwen2.5-0.5B'
    >>> published_name("/home/ann/.cache/modelscope/hub/models/Qwen/Qwen2___5-0___5B")
    'Qwen/Qwen2.5-0.5B'
    >>> published_name("C:\\models\\Qwen2.5-0.5B")
    'Qwen2.5-0.5B'
    """
    parts = [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]
    if not parts:
        return name
    if len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--"):
        return parts[-3].removeprefix("models--").replace("--", "/", 1)
    if len(parts) > 1 and "___" in parts[-1]:  # ModelScope writes ___ for each dot of a name
        return "/".join(parts[-2:]).replace("___", ".")
    if HUB_ID.fullmatch(name):
        return name
    return parts[-1]


def check_here(place: Path, base: str, option: str) -> None:
    """`RequestError` if the base that the config `place` names is a path of another machine.

    `option` is the one that names a base.
    """
    if HUB_ID.fullmatch(base) and "___" not in base:
        return
    if (Path(base) / "config.json").is_file():
        return
    published = published_name(base)
    fix = _("name its folder with {option} DIR", option=option)
    if "/" in published:
        folder = f"models/{published.rpartition('/')[2]}"
        fix = _(
            "it is {name} of the hub: {command}; then add {option} {folder}",
            name=published,
            command=f"hf download {shell(published)} --local-dir {shell(folder)}",
            option=option,
            folder=folder,
        )
    raise RequestError(
        _("{place}: names the base {base}, which is not here; {fix}", place=place, base=base, fix=fix)
    )


def _weights_sha256(folder: Path) -> str:
    """One hash over the names and bytes of a model's weight files; `RequestError` if it has none."""
    return files_sha256(folder / name for name in open_shards(folder))


def refuse_adapter(folder: Path) -> None:
    """Raise `RequestError` with the name of the base if the folder of a model has an adapter alone."""
    adapter = folder / "adapter_config.json"
    if adapter.is_file() and not (folder / "config.json").is_file():
        base = read_object(adapter).get("base_model_name_or_path")
        raise RequestError(
            _(
                "{folder}: an adapter, expected a whole model: its base is {base}, and both together "
                "are what `tuneyard adapter fuse {word} --base {base_word} --out DIR` writes",
                folder=folder,
                base=base,
                word=shell(relative(folder)),
                base_word=shell(base),
            )
        )
