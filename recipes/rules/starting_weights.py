"""Models and adapters that a recipe starts from: each is there and whole, and each adapter fits its base."""

from collections.abc import Iterator
from pathlib import Path

from tuneyard.core.errors import ContentError, Problem, RequestError, show_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import no_folder, read_object, require
from tuneyard.core.language.message import _, counted, joined, message_of
from tuneyard.core.training.parent_adapters import last_parts, parent_adapters
from tuneyard.recipes.llamafactory.config_sizes import CONFIG, check_sizes
from tuneyard.recipes.recipe import Recipe, expanded
from tuneyard.recipes.recipe.deepspeed_file import NO_EFFECT
from tuneyard.recipes.rules.setting_rules import INCOMPLETE_MODEL, means_folder

OTHER_BASE = ProblemCode(
    "E345", _("an adapter of another base model"), _("Take the base that it was trained on.")
)
MISSING_PARENTS = ProblemCode(
    "W345",
    _("an adapter without those that it was trained on"),
    _("Write them before it, as in the message."),
)
UNCHECKED_ADAPTER = ProblemCode(
    "N345",
    _("an adapter that cannot be compared with its base here"),
    _("Check again on a machine with the base's weights."),
)
MISSING_ADAPTER = ProblemCode(
    "E346", _("a missing adapter, reward or reference model"), _("Correct the path.")
)


# Settings that name adapters, and the setting that names the model below them.
ADAPTERS = {
    "adapter_name_or_path": "model_name_or_path",
    "ref_model_adapters": "ref_model",
    "reward_model_adapters": "reward_model",
}
MODELS = ("ref_model", "reward_model")
KEPT_BY_ADAPTERS = {
    "lora_rank": "r", "lora_alpha": "lora_alpha", "use_dora": "use_dora", "use_rslora": "use_rslora",
}  # fmt: skip
"""Settings that LLaMA-Factory does not read if it continues an adapter, by their names in its config."""
RESIZING = ("resize_vocab", "add_tokens", "add_special_tokens", "new_special_tokens_config")
NEITHER = _("no hub id (owner/name) either")


def loaded_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield the models and adapters that are missing or downloaded in part, and adapters of another base."""
    bases = dict(ADAPTERS)
    models = ["model_name_or_path", *MODELS]
    reward_type = recipe.settings.get("reward_model_type", "lora")
    if reward_type != "full":  # an adapter, or the address of a server
        models.remove("reward_model")
    if reward_type == "lora":
        bases["reward_model"] = "model_name_or_path"
    damaged: list[str] = []  # no adapter is compared with them
    for key in models:
        for name in recipe.names(key):
            for problem in _model_problems(recipe, key, name):
                damaged.append(name)
                yield problem
    for key, base_key in bases.items():
        base = recipe.settings.get(base_key) or recipe.settings.get("model_name_or_path")
        if base in damaged:
            base = None
        for name in recipe.names(key):
            yield from _adapter_problems(recipe, key, name, base_key, base)
        yield from _left_out_parents(recipe, key)
    checkpoint = recipe.settings.get("resume_from_checkpoint")
    if recipe.trains and isinstance(checkpoint, str) and (Path(checkpoint) / "adapter_config.json").is_file():
        base = recipe.settings.get("model_name_or_path")
        if base in damaged:
            base = None
        yield from _adapter_problems(recipe, "resume_from_checkpoint", checkpoint, "model_name_or_path", base)
    yield from _kept_settings(recipe)


def is_missing(name: str) -> bool:
    """True if a name means a folder of this machine that does not exist; the hub's `owner/name` does not."""
    return means_folder(name) and not expanded(name).exists()


def _model_problems(recipe: Recipe, key: str, name: str) -> Iterator[Problem]:
    """Yield a missing model, or a weight file that is missing, cut off or a pointer of Git LFS.

    Only headers are read. Pickles are not opened.
    """
    if key in MODELS and is_missing(name):  # setting_rules.py reports a missing model_name_or_path
        yield recipe.problem(MISSING_ADAPTER, key, no_folder(name, NEITHER))
    model = expanded(name)
    try:
        if any(model.glob("model*.safetensors*")):
            check_weights(model)
        if (model / CONFIG).is_file():
            check_sizes(model / CONFIG)
    except (ContentError, OSError) as error:
        yield recipe.problem(
            INCOMPLETE_MODEL, key, message_of(error), _("`hf download` completes the folder")
        )


def check_weights(folder: Path) -> None:
    """Raise `ContentError` for a weight file that is missing or cut off. Headers and sizes are compared."""
    from tuneyard.core.weights.tensors import open_weights

    index = folder / "model.safetensors.index.json"
    paths = set(folder.glob("*model.safetensors")) or {folder / "model.safetensors"}
    if index.is_file() and not (folder / "model.safetensors").is_file():  # transformers takes that one first
        weight_map = read_object(index).get("weight_map")
        if isinstance(weight_map, dict):
            paths = {folder / str(file) for file in weight_map.values()}
    for path in sorted(paths):
        if not path.is_file():
            raise ContentError(_("{path} is missing", path=path))
        open_weights(path)


def _kept_settings(recipe: Recipe) -> Iterator[Problem]:
    """Yield settings that a continued adapter keeps from its own training."""
    names = recipe.names("adapter_name_or_path")
    file = expanded(names[-1]) / "adapter_config.json" if names else None
    if file is None or not file.is_file() or recipe.settings.get("create_new_adapter") or not recipe.trains:
        return
    try:
        config = read_object(file)
    except ContentError:  # E345 reports it
        return
    for key, kept in KEPT_BY_ADAPTERS.items():
        value, own = recipe.settings.get(key), config.get(kept)
        if value is not None and own is not None and value != own:
            message = _(
                "has no effect: training goes on with the adapter's own {setting}, {value}",
                setting=kept,
                value=show_value(own),
            )
            yield recipe.problem(NO_EFFECT, key, message, _("create_new_adapter: true starts a new adapter"))


def _adapter_problems(recipe: Recipe, key: str, name: str, base_key: str, base: object) -> Iterator[Problem]:
    """Yield that an adapter is missing, or does not fit the `base` that `base_key` names, if it is one."""
    folder = expanded(name)
    if key != "resume_from_checkpoint":
        folder /= str(recipe.settings.get("adapter_folder") or "")
    if is_missing(name):
        yield recipe.problem(MISSING_ADAPTER, key, no_folder(name, NEITHER))
        return
    if not folder.exists():  # on the hub
        return
    # imports numpy
    from tuneyard.core.weights.adapter_files import CONFIG, WEIGHTS, WEIGHTS_INDEX, find_pickle
    from tuneyard.core.weights.base_compatibility import adapter_mismatches

    is_split_or_pickled = (folder / WEIGHTS_INDEX).is_file() or find_pickle(folder) is not None
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file() and not (file == WEIGHTS and is_split_or_pickled):
            yield recipe.problem(
                MISSING_ADAPTER,
                key,
                _("{name}: not an adapter: {file} is missing", name=name, file=file),
                _subfolder(folder),
            )
            return
    if not isinstance(base, str) or not base:
        return
    from tuneyard.core.weights.adapter_files import check_base

    base_folder = expanded(base)
    try:
        base_name = read_object(folder / CONFIG).get("base_model_name_or_path")
        fix = _(
            "set `{key}` to that base; if both are the same model, name {base} in {file}",
            key=base_key,
            base=base,
            file=folder / CONFIG,
        )
        trained_on = base_name if isinstance(base_name, str) and base_name else None
        unchecked = check_base(folder, trained_on, base_folder, base, same=False, fix=fix)
        if unchecked:
            yield recipe.problem(UNCHECKED_ADAPTER, key, unchecked)
            if not base_folder.is_dir():
                return
        reason = _why_shapes_unknown(folder, base_folder)
        if reason:
            yield recipe.problem(
                UNCHECKED_ADAPTER,
                key,
                _("adapter {name}: its shapes are not checked: {reason}", name=name, reason=reason),
            )
            return
        # LLaMA-Factory enlarges the embeddings before it loads an adapter (hparams/model_args.py)
        may_grow = any(recipe.settings.get(setting) for setting in RESIZING)
        misfits = adapter_mismatches(folder, base_folder, may_grow=may_grow)
        if misfits:
            message = _("adapter {name}: {misfit}", name=name, misfit=misfits[0])
            if len(misfits) > 1:
                message = _(
                    "adapter {name}: {misfit} ({tensors} in all)",
                    name=name,
                    misfit=misfits[0],
                    tensors=counted(len(misfits), "tensor", "tensors"),
                )
            fix = _(
                "set `{key}` to the base of the adapter, or name an adapter of {base}",
                key=base_key,
                base=base,
            )
            yield recipe.problem(OTHER_BASE, key, message, fix)
    except (ContentError, RequestError) as error:
        yield recipe.problem(OTHER_BASE, key, message_of(error))


def _left_out_parents(recipe: Recipe, key: str) -> Iterator[Problem]:
    """Yield adapters that were trained on top of others which the setting does not name before them.

    LLaMA-Factory merges the names in their order, and looks at no record of their trainings.
    """
    names = recipe.names(key)
    for position, name in enumerate(names):
        try:
            parents = [parent.name for parent in parent_adapters(expanded(name))]
        except ContentError:  # a damaged record names none; the commands that use the adapter warn
            continue
        before = {last_parts(other) for other in names[:position]}
        missing = [parent for parent in parents if last_parts(parent) not in before]
        if missing:
            message = _(
                "{name} was trained on top of {parents}, and the base here is without",
                name=name,
                parents=joined(missing),
            )
            complete = ",".join([*names[:position], *missing, *names[position:]])
            yield recipe.problem(MISSING_PARENTS, key, message, f"{key}: {complete}")


def _subfolder(folder: Path) -> str:
    """The fix for a folder in which PEFT saved an adapter under its name, "" for any other."""
    for config in sorted(folder.glob("[!.]*/adapter_config.json")):
        if not config.parent.name.startswith("checkpoint-"):
            name = config.parent.name
            return _(
                "PEFT saved it under its name: add adapter_folder: {name}, or name {folder}",
                name=name,
                folder=config.parent,
            )
    return ""


def _why_shapes_unknown(adapter: Path, base: Path) -> str:
    """Reason why the shapes of adapter and base cannot be compared, "" if they can."""
    from tuneyard.core.weights.adapter_files import WEIGHTS, WEIGHTS_INDEX
    from tuneyard.core.weights.tensors import INDEX, SINGLE

    if not base.is_dir():
        return _("the base {base} is not a folder here", base=base)
    if not any((base / name).is_file() for name in (SINGLE, INDEX)):
        return _("{base} has no weights in safetensors", base=base)
    if not any((adapter / name).is_file() for name in (WEIGHTS, WEIGHTS_INDEX)):
        return _("its weights are pickled")
    if "quantization_config" in read_object(require(base / "config.json", _("the base model's config"))):
        return _("the weights of {name} are quantised", name=base)
    return ""
