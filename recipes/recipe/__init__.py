"""A recipe as LLaMA-Factory reads it: a YAML file, `key=value` over it, and the line of each key."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tuneyard.core.datasets import read_registry, registry_folder
from tuneyard.core.documents import BOM, is_number, read_yaml
from tuneyard.core.errors import ContentError, Problem, RequestError, nearest, show_value, wrong_value
from tuneyard.core.errors.problem_codes import ProblemCode
from tuneyard.core.files import bundled, parse_json, read_object, require
from tuneyard.core.files.bounded_reading import open_regular, read_text
from tuneyard.core.language.message import _, relative
from tuneyard.core.text.quoting import shell
from tuneyard.core.text.secrets import (
    HIDDEN,
    VARIABLES,
    is_secret,
    public_settings,
    public_words,
    secrets_inside,
)
from tuneyard.core.training.training_run import names_in
from tuneyard.recipes.recipe.other_files import refuse_other_file

MISSING_PACKAGE = ProblemCode("E309", _("a missing package"), _("Run the install command in the message."))
SKIPPED_PACKAGE = ProblemCode(
    "W309",
    _("a missing package without which LLaMA-Factory trains on"),
    _("Install it, or take the setting out."),
)
MISSING_PACKAGE_HERE = ProblemCode(
    "N309", _("a package that this machine lacks"), _("Install it where you train.")
)
DISK_TOO_SMALL = ProblemCode(
    "E342",
    _("a disk too small for the checkpoints"),
    _("Lower `save_total_limit`, or write `save_only_model: true`."),
)
DISK_TOO_SMALL_HERE = ProblemCode(
    "N342",
    _("a disk of this machine too small for the checkpoints"),
    _("Check the disk where you train."),
)
NOT_WRITABLE = ProblemCode(
    "E343", _("an `output_dir` that cannot be written"), _("Change its permissions, or name another folder.")
)
NOT_WRITABLE_HERE = ProblemCode(
    "N343",
    _("an `output_dir` that this machine cannot write"),
    _("Check the permissions where you train."),
)
MISSING_PATH = ProblemCode(
    "E344", _("a model folder or `media_dir` that does not exist"), _("Correct the path.")
)
MISSING_PATH_HERE = ProblemCode(
    "N344", _("a path that this machine lacks"), _("Check the path where you train.")
)
NOTES: Mapping[str, str] = {
    MISSING_PACKAGE: MISSING_PACKAGE_HERE,
    SKIPPED_PACKAGE: MISSING_PACKAGE_HERE,
    DISK_TOO_SMALL: DISK_TOO_SMALL_HERE,
    NOT_WRITABLE: NOT_WRITABLE_HERE,
    MISSING_PATH: MISSING_PATH_HERE,
}
"""The note of a problem of this machine, for a recipe that another one trains."""
JSON_SETTINGS = ("deepspeed", "fsdp_config", "accelerator_config")
"""Settings that may name a file of JSON."""
SECRET_INSIDE = _(
    "found a password or a token, which the files of the training would record; leave it out, and set the "
    "variable from which its library reads it: export HF_TOKEN=…"
)


class SettingProblem(Problem):
    """A setting is wrong by itself. LLaMA-Factory's own words on it would repeat this."""

    __slots__ = ()


class MachineProblem(Problem):
    """This machine lacks something: a note (N…) on a recipe that another one trains."""

    __slots__ = ()


class RunProblem(Problem):
    """A note on a training's output_dir or weights that the training prints itself."""

    __slots__ = ()


class MissingDataProblem(Problem):
    """A dataset is not registered, or its file is missing."""

    __slots__ = ()


class UnboundedDataProblem(MissingDataProblem):
    """A dataset is a pipe, or has a record beyond the limits: LLaMA-Factory would take all memory for it."""

    __slots__ = ()


def expanded(name: str) -> Path:
    """A path with its `~` resolved; `~nobody` stays, as for transformers. `Path.expanduser` fails at it."""
    return Path(os.path.expanduser(name))  # noqa: PTH111


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of one training: the file, the settings after its overrides, and the line of each key.

    `settings` and `overrides` are written into files and printed, so that neither has settings with secrets:
    `secrets` has their values.
    """

    path: Path
    settings: dict[str, object]
    lines: dict[str, int]
    overrides: tuple[str, ...] = ()
    secrets: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def output_dir(self) -> Path:
        """Folder that the training writes. `ContentError` if the recipe names none."""
        return expanded(self.text("output_dir"))

    @property
    def stage(self) -> str:
        """Stage of the training."""
        return str(self.settings.get("stage", "sft"))

    @property
    def method(self) -> str:
        """LLaMA-Factory's `finetuning_type`."""
        return str(self.settings.get("finetuning_type", "lora"))

    @property
    def trains(self) -> bool:
        """True if the recipe trains, and does not only evaluate or predict."""
        return self.settings.get("do_train") is True

    @property
    def datasets(self) -> list[str]:
        """Names of the datasets that are trained and evaluated on."""
        return [*self.names("dataset"), *self.names("eval_dataset")]

    def secret_variables(self) -> dict[str, str]:
        """The environment variables from which the training reads its secrets."""
        variables = {}
        for key, variable in VARIABLES.items():
            if key in self.secrets:
                variables[variable] = self.secrets[key]
        return variables

    def text(self, key: str) -> str:
        """Read a setting as text. `ContentError` if it is missing or not a text."""
        value = self.settings.get(key)
        if not isinstance(value, str) or not value.strip():
            raise ContentError(
                _(
                    "{place}: {name}: found {value!r}, expected a text",
                    place=self.place(key),
                    name=key,
                    value=value,
                )
            )
        return value

    def names(self, key: str) -> list[str]:
        """Read a comma-separated setting (datasets, modules). [] if it is missing."""
        return names_in(self.settings.get(key))

    def number(self, key: str, default: float) -> float:
        """Read a setting as a number; `default` if it is not one or too large (E302 and E313 report it)."""
        value = self.settings.get(key)
        if not is_number(value):
            return default
        return float(value)

    def is_overridden(self, key: str) -> bool:
        """True if the command line gives this setting."""
        return any(override.partition("=")[0] == key for override in self.overrides)

    def place(self, key: str) -> str:
        """Place of a key: `file:line`, or `file (override)`."""
        if self.is_overridden(key):
            return f"{self.path} (override)"
        return f"{self.path}:{self.lines[key]}" if key in self.lines else str(self.path)

    def problem(
        self, code: str, key: str, message: str, hint: str = "", kind: type[Problem] = Problem
    ) -> Problem:
        """Make a problem at the place of the setting `key`."""
        return kind(code, self.place(key), message, key, hint)

    def setting_problem(self, code: str, key: str, message: str, hint: str = "") -> Problem:
        """A problem of the value of `key` itself."""
        return self.problem(code, key, message, hint, SettingProblem)

    def json_setting(self, key: str) -> dict[str, object]:
        """A setting that is an object, or JSON text of one, or names a file of one; {} without it.

        transformers reads the file as plain UTF-8. `ContentError` for a file that it cannot read, `OSError`
        without one.
        """
        value = self.settings.get(key)
        if isinstance(value, dict):
            return value
        if not isinstance(value, str) or not value:
            return {}
        if value.startswith("{"):
            parsed = parse_json(value, key)
            if not isinstance(parsed, dict):
                raise wrong_value(key, parsed, _("a JSON object"))
            return parsed
        path = Path(value)
        content = read_object(path)
        with open_regular(path) as file:
            has_mark = file.read(len(BOM)) == BOM
        if has_mark:
            raise ContentError(
                _(
                    "{path}: begins with a byte-order mark, which transformers takes for broken JSON: "
                    "save it without one",
                    path=path,
                )
            )
        return content

    def zero(self) -> dict[str, object]:
        """ZeRO settings of DeepSpeed, {} without any. Errors as of `json_setting`, also for a wrong stage."""
        zero = self.json_setting("deepspeed").get("zero_optimization", {})
        stage = zero.get("stage", 0) if isinstance(zero, dict) else zero
        if not isinstance(zero, dict) or stage not in (0, 1, 2, 3):
            raise ContentError(
                _(
                    "{file}: zero_optimization: found stage {stage}, expected 0, 1, 2 or 3",
                    file=self.object_name("deepspeed"),
                    stage=show_value(stage),
                )
            )
        return zero

    def object_name(self, key: str) -> str:
        """How messages call the object of a setting: its file, or the setting if it has the object itself."""
        value = self.settings.get(key)
        return value if isinstance(value, str) and not value.startswith("{") else f"`{key}`"

    def zero_stage(self) -> int:
        """Stage of ZeRO; 0 without a DeepSpeed file, or with a wrong one (E310)."""
        try:
            stage = self.zero().get("stage", 0)
        except (ContentError, OSError):
            return 0
        return stage if isinstance(stage, int) else 0

    def with_settings(self, settings: dict[str, object]) -> "Recipe":
        """Copy of this recipe with settings added or changed."""
        return replace(self, settings={**self.settings, **settings})


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe through OmegaConf, as LLaMA-Factory does, so that both read `1e-4` as a number.

    `RequestError` if the file is missing or an override is not `key=value`, `ContentError` for bad content.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    path = find_recipe(path)
    if path.is_dir():
        recipes = [str(file) for file in path.glob("*.y*ml")]
        there = _("name one that is there: ls {folder}", folder=shlex.quote(str(path)))
        if len(recipes) == 1:
            there = _("name the one in it: {name}", name=relative(recipes[0]))
        raise RequestError(
            _("{path}: is a folder, expected a recipe (a YAML file); {hint}", path=path, hint=there)
        )
    if path.suffix not in {".yaml", ".yml"}:
        raise RequestError(
            _(
                "{path}: LLaMA-Factory takes recipes that end in .yaml or .yml; `tuneyard recipe new "
                "--dataset NAME --model MODEL --out R.yaml` writes one",
                path=path,
            )
        )
    parsed = read_yaml(path, "recipe")  # refuses what OmegaConf would work on for ever
    expected = _("expected keys with values (learning_rate: 1.0e-4)")
    if not isinstance(parsed.value, dict):
        fault = _("is empty") if parsed.value is None else _("found {value}", value=show_value(parsed.value))
        raise ContentError(_("{path}: {fault}, {expected}", path=path, fault=fault, expected=expected))
    if "write" in parsed.value or "like" in parsed.value:
        raise ContentError(
            _(
                "{path}: a data spec, not a recipe: tuneyard data check {command}",
                path=path,
                command=shlex.quote(str(path)),
            )
        )
    refuse_other_file(path, parsed.value)
    for override in overrides:
        key, equals, _value = override.partition("=")
        first_word = re.match(r"\w*", override)
        shown = override
        if first_word and is_secret(first_word[0]):
            shown = f"{first_word[0]}…"
        if not equals or not key.isidentifier():
            raise RequestError(
                _(
                    "{override!r}: expected key=value, as in learning_rate=1e-4 (and one recipe)",
                    override=shown,
                )
            )
        try:
            OmegaConf.from_cli([override])
        except (YAMLError, OmegaConfBaseException, ValueError, RecursionError) as error:
            raise RequestError(_("{override!r}: the value is not YAML", override=shown)) from error
    try:
        base, over = OmegaConf.create(read_text(path)), OmegaConf.from_cli(list(overrides))
        settings = OmegaConf.to_container(OmegaConf.merge(base, over), resolve=False)
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        reason = str(error).splitlines()[0]
        for key, value in parsed.value.items():
            if is_secret(str(key)) and value:
                reason = reason.replace(str(value), HIDDEN)
        raise ContentError(f"{relative(path)}: {reason}") from error
    if not isinstance(settings, dict) or not settings:
        raise ContentError(_("{path}: found no settings, {expected}", path=path, expected=expected))
    if isinstance(settings.get("deepspeed"), str):
        settings["deepspeed"] = str(bundled(Path(settings["deepspeed"])))
    named = {str(key): value for key, value in settings.items()}
    for key, value in named.items():
        places = [] if is_secret(key) else secrets_inside(value, key)
        if places:
            line = f":{parsed.lines[key]}" if key in parsed.lines else ""
            raise ContentError(
                _("{path}{line}: {key}: {reason}", path=path, line=line, key=places[0], reason=SECRET_INSIDE)
            )
    _refuse_secret_files(named)
    public = public_settings(named)
    secrets = {key: str(named[key]) for key in named if key not in public}
    return Recipe(path, public, parsed.lines, tuple(public_words(overrides)), secrets)


def _refuse_secret_files(settings: Mapping[str, object]) -> None:
    """`ContentError` for a secret in a file of settings: the training prints the whole file into its log."""
    for key in JSON_SETTINGS:
        value = settings.get(key)
        if not isinstance(value, str) or value.startswith("{"):
            continue
        try:
            content = read_object(Path(value))
        except (ContentError, OSError):  # E310 reports the file
            continue
        places = secrets_inside(content, "")
        if places:
            key = places[0].removeprefix(".")
            raise ContentError(_("{path}: {key}: {reason}", path=value, key=key, reason=SECRET_INSIDE))


def find_recipe(path: Path) -> Path:
    """Find the file of a recipe. A bare name is recipes/NAME.yaml. `RequestError` if it is missing."""
    by_name = bundled(Path("recipes") / f"{path}.yaml")
    if path.exists() or path.suffix in {".yaml", ".yml"} or len(path.parts) != 1:  # qwen0.5b-qa has no suffix
        return require(bundled(path), "recipe")
    if not by_name.is_file():
        folder = registry_folder(name=str(path))
        if str(path) in read_registry(folder):
            raise RequestError(
                _(
                    "{path}: a dataset of {folder}/, expected a recipe; write one: tuneyard recipe new "
                    "--dataset {dataset} --model DIR --out {dataset}.yaml",
                    path=path,
                    folder=folder,
                    dataset=shell(path),
                )
            )
        hint = nearest(
            path.name,
            sorted(file.stem for file in by_name.parent.glob("*.yaml")),
            _("tuneyard recipe new writes one"),
        )
        raise RequestError(
            _("recipe not found: {name}, expected FILE.yaml before key=value; {hint}", name=path, hint=hint)
        )
    return by_name
