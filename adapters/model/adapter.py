"""What adapters of every kind share: name, hashes, targets, and the tensors that are saved in full.

LoRA, the kind that can be added, is in `lora.py`. `adapters.kinds` has a file for each other kind. Fields of
adapter_config.json have PEFT's meaning. PEFT ignores nearly every one of them in one place or another. Here
each is used or stops the command.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from tuneyard.adapters.model.change import Change
from tuneyard.adapters.model.patterns import LayerPatterns, NamesInFull, ends_of, is_expression
from tuneyard.core.documents import LARGEST
from tuneyard.core.errors import ContentError, bounded, show_value
from tuneyard.core.files import Fields, are_texts, check_characters, file_sha256, sha256, text_sha256
from tuneyard.core.language.message import _, joined, relative
from tuneyard.core.weights.adapter_files import (
    CONFIG,
    EMBEDDINGS,
    HEADS,
    PREFIX,
    ChangedModule,
)
from tuneyard.core.weights.adapter_names import open_adapter_weights
from tuneyard.core.weights.base_compatibility import module_mismatches
from tuneyard.core.weights.base_models import Base
from tuneyard.core.weights.tensors import LONGEST_NAME, Array, Tensor, Weights

SHOWN = 5  # problems of one file in a message
MOST_EXPRESSIONS = 1000  # of one config: each is tried on each module
MOST_DIGITS = 18  # of a layer's number
MISMATCH = _(
    "expected {config} and weights of one training: copy both again, train "
    "again, or name one of its checkpoint folders, if there are any",
    config=CONFIG,
)
# Fields that PEFT also accepts as one text (a regular expression), fields that must be lists, and maps.
TEXT_OR_LIST = ("target_modules", "exclude_modules", "layers_pattern")
LISTS = ("modules_to_save", "target_parameters")
MAPS = ("rank_pattern", "alpha_pattern")
# PEFT saves a larger embedding of modules_to_save twice more: its values again, and those before training.
DOUBLES = (".modules_to_save.", ".original_module.")


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """A checked adapter_config.json. `raw` has all fields of the file, `base` None if it names no base.

    `bias` names the trained biases: none, all or lora_only. `fan_in_fan_out`: the base stores the transposed
    weights (Conv1D). `modules_to_save` were trained in full. `rank` is None for a kind without ranks.
    """

    path: Path
    raw: dict[str, Any]
    base: str | None
    bias: str
    fan_in_fan_out: bool
    modules_to_save: tuple[str, ...]
    rank: int | None = None

    def in_bounded_time(self) -> AbstractContextManager[None]:
        """A block that matches modules, bounded if the config has regular expressions. Names take no time."""
        if not any(is_expression(pattern) for _field, pattern, _expression in _patterns(self.raw)):
            return nullcontext()
        return bounded(_("{path}: its regular expressions (target_modules and the like)", path=self.path))

    def targets(self, module: str) -> bool:
        """True if PEFT would adapt a module: targets, exclusions, layers."""
        targets = self.raw.get("target_modules")
        if self._excluded and _names(self._excluded, module):
            return False
        if self._names_in_full.are_part_of(module):
            return False
        if targets == "all-linear":
            return True
        if isinstance(self._targets, frozenset) and module in self._targets:
            return True
        if not _names(self._targets, module):
            return False
        return isinstance(targets, str) or self._in_layers(module)

    @cached_property
    def _targets(self) -> object:
        """The pattern of `target_modules`, or the names of its list."""
        return _pattern_or_names(self.raw.get("target_modules"))

    @cached_property
    def _excluded(self) -> object:
        """The pattern of `exclude_modules`, or the names of its list."""
        return _pattern_or_names(self.raw.get("exclude_modules"))

    @cached_property
    def _names_in_full(self) -> NamesInFull:
        """The names of `modules_to_save`."""
        return NamesInFull(self.modules_to_save)

    @cached_property
    def _layer_patterns(self) -> LayerPatterns:
        """The patterns of `layers_pattern`."""
        return LayerPatterns(as_list(self.raw.get("layers_pattern") or r"[^.]*"))

    @cached_property
    def _layers(self) -> frozenset[int]:
        """The numbers of `layers_to_transform`."""
        return frozenset(as_list(self.raw.get("layers_to_transform")))

    def saves_in_full(self, name: str) -> bool:
        """True if the config explains a full tensor: in modules_to_save, a bias, embedding or head."""
        module, _dot, leaf = name.rpartition(".")
        if leaf == "bias" and self.bias != "none":
            return self.bias == "all" or self.targets(module.removesuffix(".base_layer"))
        if name.endswith((*EMBEDDINGS, *HEADS)):  # save_embedding_layers, which no field records
            return True
        return any(True for _name in self.full_names_at(module))

    def full_names_at(self, module: str) -> Iterator[str]:
        """Yield the names of `modules_to_save` that a module path ends with."""
        return self._names_in_full.ends_of(module)

    def may_exclude(self, target: str) -> bool:
        """True if `exclude_modules` may leave out every module with this name of target_modules."""
        if isinstance(self._excluded, str):  # a regular expression on whole paths, which only the base has
            return True
        return target in self._ends_of_excluded or _names(self._excluded, target)

    @cached_property
    def _ends_of_excluded(self) -> frozenset[str]:
        """What the names of `exclude_modules` end with."""
        if not isinstance(self._excluded, frozenset):
            return frozenset()
        return frozenset(end for name in self._excluded for end in ends_of(name))

    def _in_layers(self, module: str) -> bool:
        if self.raw.get("layers_to_transform") in (None, []):
            return True
        digits = self._layer_patterns.layer_of(module)
        return digits is not None and len(digits) <= MOST_DIGITS and int(digits) in self._layers


@dataclass(frozen=True, slots=True)
class ModuleStatistics:
    """One module of any kind of adapter, and the number of elements that the adapter has for it."""

    path: str
    layer: int | None
    target: str
    parameters: int

    @property
    def change_norm(self) -> float | None:
        """‖ΔW‖ (Frobenius), None for a kind whose ΔW needs the base."""
        return None


@dataclass(frozen=True)
class Adapter(ABC):
    """A checked adapter. `modules` lists the modules that it changes by path, layer by layer.

    A path has no PEFT prefix, e.g. `model.layers.0.self_attn.q_proj`.
    """

    folder: Path
    config: AdapterConfig
    weights: Weights
    modules: Mapping[str, ChangedModule]

    NOT_MERGED: ClassVar[str] = ""
    """Why ΔW cannot be added without the base's weights: only `fuse` and `show` open such an adapter."""
    NOT_DRAWN: ClassVar[str] = ""
    """Why `show --plot` cannot draw such an adapter."""
    HAS_MAGNITUDES: ClassVar[bool] = False
    """True if magnitudes change a weight, which only the base's weights show."""
    HAS_RANKS: ClassVar[bool] = True
    """False for a kind without ranks: merge.json tells kinds apart by the ranks of the adapters."""
    TENSORS: ClassVar[str]
    """What the kind's own tensors are called."""
    SUFFIXES: ClassVar[tuple[str, ...]]
    """How the names of the kind's own tensors end."""
    TAG: ClassVar[str]
    """The kind on the page of a fused model on the hub."""
    CHANGE: ClassVar[str]
    """What `fuse` does to the base, for the card of the model."""
    SETTINGS: ClassVar[Sequence[tuple[str, str]]]
    """Fields of the config that `show` prints, each with its label."""
    COLUMNS: ClassVar[Sequence[str]]
    """Header of the table of `show`."""

    @staticmethod
    @abstractmethod
    def recognises(raw: Mapping[str, Any]) -> bool:
        """True if an adapter_config.json is of this kind."""

    @staticmethod
    @abstractmethod
    def read_config(path: Path, raw: dict[str, Any]) -> AdapterConfig:
        """Check every field; `ContentError` lists those that are not supported."""

    @staticmethod
    @abstractmethod
    def read_modules(weights: Weights, config: Fields) -> Iterable[tuple[str, ChangedModule]]:
        """The changed modules by the tensors of the file; `ContentError` for tensors that do not fit."""

    @abstractmethod
    def mismatches(self) -> Iterator[str]:
        """Yield own tensors of the kind that the config does not explain."""

    def misfits(self, base: Base) -> Iterator[str]:
        """Yield why modules of the base cannot be changed by this adapter."""
        return module_mismatches(base, self.modules)

    def on_base(self, base: Base) -> Self:  # noqa: ARG002  # of kinds whose files do not say it
        """The adapter with its modules as the base's class stores their weights."""
        return self

    @abstractmethod
    def change(self, weight: float, path: str, source: Tensor, base_as: str | None) -> Change:
        """`weight` · ΔW of a module whose weight is `source`. `base_as` as in `base_blocks`."""

    @abstractmethod
    def is_zero(self, path: str, base: Base | None) -> bool:
        """True if the module changes nothing, by the file alone or by the `base` too."""

    @abstractmethod
    def measure(self, path: str) -> ModuleStatistics:
        """What `show` lists of a module; each kind has its own class, of which `rows` makes a table."""

    @staticmethod
    @abstractmethod
    def rows(modules: Sequence[Any]) -> list[list[str]]:
        """Rows of the table of `show`, in the order of `COLUMNS`."""

    @staticmethod
    def remark(modules: Sequence[Any]) -> str:  # noqa: ARG004  # of kinds that have one
        """A sentence before the table of `show`, or ""."""
        return ""

    @classmethod
    def open(cls, folder: Path, raw: dict[str, Any]) -> Self:
        """Check that config and weights match. Tensor values are checked when they are read."""
        config = cls.read_config(folder / CONFIG, raw)
        weights = open_adapter_weights(folder)
        check_characters("\n".join(weights.tensors), weights.path)
        modules = sorted(  # layer 2 before layer 10
            cls.read_modules(weights, raw),
            key=lambda item: [part.zfill(8) if part.isdigit() else part for part in item[0].split(".")],
        )
        adapter = cls(folder, config, weights, dict(modules))
        if not adapter.modules:
            raise ContentError(_("{path}: no {names} in it", path=weights.path, names=cls.TENSORS))
        with config.in_bounded_time():
            raise_together([*adapter.mismatches(), *adapter._shared_mismatches()], weights.path, MISMATCH)
        return adapter

    def check_weight(self, weight: float, *, alone: bool) -> None:  # noqa: B027  # any weight is good
        """`ContentError` if this kind cannot be fused with a weight, or with other adapters."""

    @property
    def name(self) -> str:
        """The folder's name; for a checkpoint the run's name comes first (`name_of`)."""
        return name_of(self.folder)

    @property
    def full_tensors(self) -> list[str]:
        """Names of the tensors saved in full, without PEFT's prefix, e.g. `lm_head.weight`.

        They come from `modules_to_save`, from biases and from copies of the base (`….base_layer.weight`).
        """
        keys = self.weights.tensors.keys()
        names = []
        for key in keys:
            is_copy = any(double in key and key.replace(double, ".") in keys for double in DOUBLES)
            if not key.endswith(self.SUFFIXES) and not is_copy:
                names.append(key.removeprefix(PREFIX))
        return names

    def full_tensor(self, name: str) -> Array:
        """One of `full_tensors` as fp32."""
        return self.weights.read(PREFIX + name)

    @property
    def word(self) -> str:
        """The folder as a word of a command, which would read one that begins with a dash as an option."""
        text = str(self.folder)
        return f"./{text}" if text.startswith("-") else text

    def fuse_words(self, base: str) -> list[str]:
        """The command that adds the adapter to its base."""
        words = ["tuneyard", "adapter", "fuse", self.word, "--base", base]
        return [*words, "--out", f"models/{self.name}"]

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the SHA-256 of the weights file and of the config, as hex."""
        return text_sha256(self.weights_sha256 + sha256(self.folder / CONFIG))

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file, of several as if they were one, as hex."""
        files = self.files
        if len(files) == 1:
            return file_sha256(files[0])
        return sha256(*files)

    @property
    def files(self) -> list[Path]:
        """The weights file, or all of several."""
        return sorted({tensor.file for tensor in self.weights.tensors.values()})

    def _shared_mismatches(self) -> Iterator[str]:
        """Yield every tensor that the config does not explain, and every tensor that it expects in vain."""
        config, full_tensors = self.config, self.full_tensors
        for path in self.modules:
            if not config.targets(path):
                yield _("{path}: is adapted, but {config} does not target it", path=path, config=CONFIG)
        for name in full_tensors:
            parent = name.rpartition(".")[0]
            copy_of_base = (
                parent.endswith(".base_layer") and parent.removesuffix(".base_layer") in self.modules
            )
            if PREFIX + name not in self.weights.tensors:
                yield _("{name}: expected names that begin with {prefix!r}", name=name, prefix=PREFIX)
            elif not (copy_of_base or config.saves_in_full(name)):
                yield _("{name}: {config} does not explain this tensor", name=name, config=CONFIG)
        targets = config.raw.get("target_modules")
        if isinstance(targets, list):
            adapted_ends = {end for path in self.modules for end in ends_of(path)}
            for target in targets:
                if target not in adapted_ends and not config.may_exclude(target):
                    yield _(
                        "{config} targets {target!r}, but no such tensor is in the file",
                        config=CONFIG,
                        target=target,
                    )
        saved = {kept for name in full_tensors for kept in config.full_names_at(name.rpartition(".")[0])}
        for kept in config.modules_to_save:
            if kept not in saved:
                yield _("modules_to_save names {name!r}, but no such tensor is in the file", name=kept)
        if config.bias == "lora_only" and not any(name.endswith(".bias") for name in full_tensors):
            yield _(
                "bias 'lora_only', but no bias was saved (PEFT never writes those of lora_only): its "
                "training cannot be reproduced"
            )


def checked_fields(
    path: Path, raw: dict[str, Any], problems: Iterable[str], explained: Set[str], switches: Iterable[str]
) -> dict[str, Any]:
    """The fields of `AdapterConfig`; `ContentError` with all `problems` of the kind, and those of any kind.

    The kind explains the fields `explained`. Those of `switches` are true or false.
    """
    raise_together([*problems, *_shared_problems(raw, explained, switches)], path)
    return {
        "path": path,
        "raw": raw,
        "base": raw.get("base_model_name_or_path") or None,
        "bias": raw.get("bias", "none"),
        "fan_in_fan_out": bool(raw.get("fan_in_fan_out")),
        "modules_to_save": tuple(raw.get("modules_to_save") or ()),
    }


def _shared_problems(raw: dict[str, Any], explained: Set[str], switches: Iterable[str]) -> Iterator[str]:
    """Yield fields that nobody explains, and values of a type or form that PEFT does not read."""
    unknown = [key for key, value in raw.items() if value and key not in explained]
    if unknown:
        names = joined(unknown[:SHOWN])
        if len(unknown) > SHOWN:
            names = _("{names}, … and {number:,} more", names=names, number=len(unknown) - SHOWN)
        yield _("{names}: unknown fields, which may change the meaning of the weights", names=names)
    for field in (*TEXT_OR_LIST, *LISTS):
        value = raw.get(field)
        is_list = isinstance(value, list) and are_texts(value)
        is_text = isinstance(value, str) and field in TEXT_OR_LIST
        if value is not None and not is_list and not is_text:
            yield _("{field} {value}: expected a list of module names", field=field, value=show_value(value))
        if is_list and any(len(name) > LONGEST_NAME for name in as_list(value)):
            yield _(
                "{field}: found a name of more than {most:,} characters, expected names of modules",
                field=field,
                most=LONGEST_NAME,
            )
    for field in MAPS:
        value = raw.get(field) or {}
        if not isinstance(value, dict):
            yield _(
                "{field} {value}: expected a map of module patterns", field=field, value=show_value(value)
            )
    yield from _wrong_expressions(raw)
    if any(type(number) is not int for number in as_list(raw.get("layers_to_transform") or [])):
        value = show_value(raw["layers_to_transform"])
        yield _("layers_to_transform {value}: expected the number of a layer, or a list of them", value=value)
    for field in switches:
        if raw.get(field) not in (True, False, None):
            value = show_value(raw[field])
            yield _("{field} {value}: expected true or false", field=field, value=value)
    base = raw.get("base_model_name_or_path")
    if not isinstance(base, str | None):
        yield _("base_model_name_or_path {base}: expected a name", base=show_value(base))


def _patterns(raw: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (field, its pattern, the regular expression that PEFT makes of it)."""
    for field in TEXT_OR_LIST:
        value = raw.get(field)
        if isinstance(value, str) and field != "layers_pattern":
            yield field, value, value
    for field in MAPS:
        value = raw.get(field)
        if isinstance(value, dict):
            for pattern in value:
                yield field, pattern, rf"(.*\.)?({pattern})$"
    for pattern in as_list(raw.get("layers_pattern") or []):
        if isinstance(pattern, str):
            yield "layers_pattern", pattern, rf".*\.{pattern}\.(\d+)\."


def _wrong_expressions(raw: dict[str, Any]) -> Iterator[str]:
    """Yield patterns that are no regular expressions; if there are too many of these, only their number."""
    expressions = [pattern for pattern in _patterns(raw) if is_expression(pattern[1])]
    if len(expressions) > MOST_EXPRESSIONS:
        fields = joined(dict.fromkeys(field for field, _value, _expression in expressions))
        yield _(
            "{fields}: found {number:,} regular expressions, expected at most {most:,}; write names of "
            "modules",
            fields=fields,
            number=len(expressions),
            most=MOST_EXPRESSIONS,
        )
        return
    for field, value, expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            yield _(
                "{field} {value}: not a regular expression: {error}",
                field=field,
                value=show_value(value),
                error=error,
            )


def raise_together(problems: Iterable[str], place: object, fix: str = "") -> None:
    """`ContentError` with all problems of a file, one a line, if there are any, and the `fix` of them all."""
    where = relative(place)
    lines = [_("{place}: {problem}", place=where, problem=problem) for problem in problems]
    if len(lines) > SHOWN:
        lines[SHOWN:] = [_("… and {number} more", number=len(lines) - SHOWN)]
    if lines:
        raise ContentError(joined(filter(None, [*lines, fix]), "\n"))


def digest_in(folder: Path) -> str:
    """The digest of the adapter in a folder, which is not opened or checked; "" without weights."""
    files = sorted(folder.glob("adapter_model*.safetensors"))
    if not files:
        return ""
    return text_sha256(sha256(*files) + sha256(folder / CONFIG))


def name_of(folder: Path) -> str:
    """Name of an adapter's folder; for a checkpoint the run's name comes first: `rte-checkpoint-100`."""
    folder = folder.resolve()
    if folder.name.startswith("checkpoint-"):
        return f"{folder.parent.name}-{folder.name}"
    return folder.name


def wrong_numbers(numbers: Mapping[str, Any], *, whole: bool) -> Iterator[str]:
    """Yield the fields whose value is no number, or no `whole` one, above 0 and up to `LARGEST`."""
    kinds, expected = [int, float], _("a number")
    if whole:
        kinds, expected = [int], _("a whole number")
    for field, number in numbers.items():
        if type(number) not in kinds or not 0 < number <= LARGEST:
            yield _(
                "{field} {number}: expected {expected} above 0 and up to 9e15",
                field=field,
                number=show_value(number),
                expected=expected,
            )


def span(values: Sequence[float]) -> str:
    """The smallest and the largest of some values, or the one that all are."""
    low, high = f"{min(values):.4g}", f"{max(values):.4g}"
    if low == high:
        return low
    return f"{low}–{high}"


def layer_of(path: str) -> int | None:
    """Number of a module's layer, None if its path has none."""
    number = re.search(rf"\.(\d{{1,{MOST_DIGITS}}})\.", path)
    if number is None:
        return None
    return int(number[1])


def as_list(value: object) -> list[Any]:
    """A value that may be a list, or one of its items alone."""
    if isinstance(value, list):
        return value
    return [value]


def _pattern_or_names(value: object) -> object:
    """A list of names as a set: each of 100,000 modules is looked up in it."""
    return frozenset(value) if isinstance(value, list) else value


def _names(names: object, module: str) -> bool:
    """True if a pattern matches a module's whole path, or it ends with one of a set of names."""
    if isinstance(names, str):
        return re.fullmatch(names, module) is not None
    if isinstance(names, frozenset):
        return not names.isdisjoint(ends_of(module))
    return False
