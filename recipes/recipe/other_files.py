"""YAML files of other commands and programs, which a user may take for a recipe."""

import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import _, marked

TRAINED = ("dataset", "do_train", "stage")
"""Keys of which a recipe of a training has at least one."""
NEW = "tuneyard recipe new --dataset NAME --model MODEL --out R.yaml"


class OtherFile(NamedTuple):
    """A kind of file: what it is, how its keys show it, and the template of what to do."""

    name: str
    shows: Callable[[Mapping[str, Any]], bool]
    fix: str
    """Its fields are `path` of the file, quoted for a shell, and `command`, which writes a recipe."""


def _of_board(settings: Mapping[str, Any]) -> bool:
    return any(key.startswith(("top.", "train.")) for key in settings)


def _of_export(settings: Mapping[str, Any]) -> bool:
    return "export_dir" in settings and not any(key in settings for key in TRAINED)


def _of_chat(settings: Mapping[str, Any]) -> bool:
    return "infer_backend" in settings and not any(key in settings for key in TRAINED)


def _of_eval(settings: Mapping[str, Any]) -> bool:
    return {"task", "n_shot"} <= settings.keys() or {"task", "save_dir"} <= settings.keys()


def _of_v1(settings: Mapping[str, Any]) -> bool:
    configs = ("peft_config", "quant_config", "dist_config", "kernel_config", "init_config", "optim_config")
    has_config = any(isinstance(settings.get(key), Mapping) for key in configs)
    return "model" in settings and (has_config or "train_dataset" in settings)


def _of_axolotl(settings: Mapping[str, Any]) -> bool:
    return "base_model" in settings and isinstance(settings.get("datasets"), list)


def _of_mergekit(settings: Mapping[str, Any]) -> bool:
    return "merge_method" in settings and ("models" in settings or "slices" in settings)


OTHER_FILES = (
    OtherFile(
        _("settings that LLaMA Board saved"),
        _of_board,
        marked('its button "Preview command" shows the recipe to save as YAML, or {command}'),
    ),
    OtherFile(
        _("a file of llamafactory-cli export"),
        _of_export,
        marked("run llamafactory-cli export {path}, or tuneyard adapter fuse ADAPTER --base BASE --out DIR"),
    ),
    OtherFile(
        _("a file of llamafactory-cli chat"),
        _of_chat,
        marked("run llamafactory-cli chat {path}, or tuneyard eval chat --model MODEL"),
    ),
    OtherFile(
        _("a file of llamafactory-cli eval"),
        _of_eval,
        marked("run llamafactory-cli eval {path}, or tuneyard eval cmmlu --model MODEL --out DIR"),
    ),
    OtherFile(
        _("a recipe of LLaMA-Factory v1"),
        _of_v1,
        marked("this LLaMA-Factory trains recipes with model_name_or_path and dataset: {command}"),
    ),
    OtherFile(
        _("a file of axolotl"), _of_axolotl, marked("a recipe of LLaMA-Factory has other keys: {command}")
    ),
    OtherFile(_("a file of mergekit"), _of_mergekit, marked("adapters are merged by tuneyard adapter merge")),
)


def refuse_other_file(path: Path, settings: Mapping[Any, Any]) -> None:
    """`ContentError` names the kind of a file that is no recipe, and its command."""
    by_text = {str(key): value for key, value in settings.items()}
    for other in OTHER_FILES:
        if other.shows(by_text):
            fix = _(other.fix, path=shlex.quote(str(path)), command=NEW)
            raise ContentError(
                _("{path}: {kind}, not a recipe of a training: {fix}", path=path, kind=other.name, fix=fix)
            )
