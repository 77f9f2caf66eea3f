"""A recipe as LLaMA-Factory reads it: a YAML file, `key=value` over it, and the line of each key."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.errors import ContentError, RequestError
from core.files import require

if TYPE_CHECKING:
    from omegaconf import DictConfig


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of one training: the file, what its overrides made of it, and the line of each key."""

    path: Path
    settings: dict[str, object]
    lines: dict[str, int]
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Return the file's name without its suffix: `mnli` for recipes/mnli.yaml."""
        return self.path.stem

    @property
    def output_dir(self) -> Path:
        """Return the folder that the training writes; `ContentError` where the recipe names none."""
        return Path(os.path.expanduser(self.text("output_dir")))  # noqa: PTH111  # as transformers: ~nobody too

    def text(self, key: str) -> str:
        """Return the setting `key` as text; `ContentError` where it is missing or no text."""
        value = self.settings.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ContentError(f"{self.place(key)}: {key}: found {value!r}, expected a text")
        return value

    def names(self, key: str) -> list[str]:
        """Return a comma-separated setting (datasets, modules) as a list, [] where it is absent."""
        value = self.settings.get(key)
        items = value if isinstance(value, list) else str(value or "").split(",")
        return [str(item).strip() for item in items if str(item).strip()]

    def place(self, key: str) -> str:
        """Return `file:line` of a key, or `file (key=value)` where an override set it."""
        if any(override.partition("=")[0] == key for override in self.overrides):
            return f"{self.path} (override)"
        return f"{self.path}:{self.lines[key]}" if key in self.lines else str(self.path)

    def with_settings(self, settings: dict[str, object]) -> "Recipe":
        """Return this recipe with settings added or changed."""
        return replace(self, settings={**self.settings, **settings})


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe through OmegaConf, as LLaMA-Factory does, so that `1e-4` means the same to both.

    Raises `RequestError` for a missing file or an override that is no `key=value`, `ContentError`
    for a file that is not YAML, empty, or no map of keys to values.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    text = _text(path)
    try:
        lines = _lines(text, path)
        base = OmegaConf.create(text)
        merged = OmegaConf.merge(base, _assignments(overrides))
        settings = OmegaConf.to_container(merged, resolve=False)
    except YAMLError as error:
        raise ContentError(_yaml_message(path, error)) from error
    except OmegaConfBaseException as error:
        raise ContentError(f"{path}: {str(error).splitlines()[0]}") from error
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits, 1,000 lists in one another
        raise ContentError(f"{path}: not YAML that can be read: {str(error).splitlines()[0]}") from error
    if not isinstance(settings, dict) or not settings:
        raise ContentError(f"{path}: found no settings, expected keys with values (learning_rate: 1.0e-4)")
    return Recipe(path, {str(key): value for key, value in settings.items()}, lines, tuple(overrides))


def _text(path: Path) -> str:
    require(path, "recipe")
    if path.is_dir():
        raise RequestError(f"{path}: is a folder, expected a recipe (a YAML file)")
    if path.suffix not in {".yaml", ".yml"}:
        raise RequestError(f"{path}: LLaMA-Factory takes recipes that end in .yaml or .yml")
    try:
        return path.read_bytes().decode()
    except UnicodeDecodeError as error:
        raise ContentError(f"{path}: not UTF-8 at byte {error.start}") from error


def _lines(text: str, path: Path) -> dict[str, int]:
    import yaml

    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        raise ContentError(f"{path}: is empty, expected keys with values (learning_rate: 1.0e-4)")
    if not isinstance(node, yaml.MappingNode):
        kind = "list" if isinstance(node, yaml.SequenceNode) else "text"
        raise ContentError(f"{path}: found a {kind}, expected keys with values (learning_rate: 1.0e-4)")
    return {key.value: key.start_mark.line + 1 for key, _ in node.value if isinstance(key.value, str)}


def _assignments(overrides: Sequence[str]) -> "DictConfig":
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    for override in overrides:
        key, equals, _ = override.partition("=")
        if not equals or not key.isidentifier():
            raise RequestError(f"{override!r}: expected key=value, as in learning_rate=1e-4")
        try:
            OmegaConf.from_cli([override])
        except (YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
            raise RequestError(f"{override!r}: the value is not YAML") from error
    return OmegaConf.from_cli(list(overrides))


def _yaml_message(path: Path, error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}" if mark else str(path)
    return f"{where}: not YAML: {getattr(error, 'problem', None) or error}"
