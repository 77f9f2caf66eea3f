"""Adapters and second models that a recipe starts from: each is there, and each adapter fits its base."""

from collections.abc import Iterator
from pathlib import Path

from tuneyard.core.errors import ContentError, Problem, RequestError
from tuneyard.core.files import no_folder, read_object
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.rules import HUB_ID

ADAPTER_CONFIG = "adapter_config.json"
# Settings that name adapters, and the setting that names the model below them.
ADAPTERS = {
    "adapter_name_or_path": "model_name_or_path",
    "ref_model_adapters": "ref_model",
    "reward_model_adapters": "reward_model",
}
MODELS = ("ref_model", "reward_model")
NEITHER = "no hub id (owner/name) either"


def loaded_problems(recipe: Recipe) -> Iterator[Problem]:
    """Yield the adapters, reference and reward models that are missing, and adapters of another base."""
    bases = dict(ADAPTERS)
    models = list(MODELS)
    reward_type = recipe.settings.get("reward_model_type", "lora")
    if reward_type != "full":  # an adapter, or the address of a server
        models.remove("reward_model")
    if reward_type == "lora":
        bases["reward_model"] = "model_name_or_path"
    for key in models:
        for name in recipe.names(key):
            if is_missing(name):
                yield recipe.problem("E346", key, no_folder(name, NEITHER))
    for key, base_key in bases.items():
        for name in recipe.names(key):
            yield from _adapter_problems(recipe, key, name, base_key)


def is_missing(name: str) -> bool:
    """Whether a name means a folder of this machine that does not exist; the hub's `owner/name` does not."""
    folder = Path(name).expanduser()
    if folder.exists():
        return False
    starts_here = name.startswith((".", "~", "models/", "saves/"))
    return starts_here or not HUB_ID.fullmatch(name) or folder.parent.is_dir()


def _adapter_problems(recipe: Recipe, key: str, name: str, base_key: str) -> Iterator[Problem]:
    folder = Path(name).expanduser()
    if is_missing(name):
        yield recipe.problem("E346", key, no_folder(name, NEITHER))
        return
    if not folder.exists():  # on the hub
        return
    config = folder / ADAPTER_CONFIG
    if not config.is_file():
        yield recipe.problem("E346", key, f"{name}: not an adapter: {ADAPTER_CONFIG} is missing")
        return
    base = recipe.settings.get(base_key) or recipe.settings.get("model_name_or_path")
    if not isinstance(base, str) or not base:
        return
    from tuneyard.core.base_models import check_base  # imports numpy

    try:
        base_name = read_object(config).get("base_model_name_or_path")
        fix = f"set `{base_key}` to that base; if both are the same model, name {base} in {config}"
        trained_on = base_name if isinstance(base_name, str) and base_name else None
        unchecked = check_base(folder, trained_on, Path(base).expanduser(), base, same=False, fix=fix)
        if unchecked:
            yield recipe.problem("N345", key, unchecked)
    except (ContentError, RequestError) as error:
        yield recipe.problem("E345", key, str(error))
