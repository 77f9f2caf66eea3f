"""How the models of a server were trained: base, tokenizer, chat template, end tokens and length."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.adapters.export.source import ExportSource, open_source
from tuneyard.adapters.model.adapter import raise_together, wrong_numbers
from tuneyard.adapters.model.lora import LoraAdapter
from tuneyard.adapters.model.provenance import open_parts
from tuneyard.adapters.model.weighted import check_fit, parse_optional_weight
from tuneyard.core.errors import ContentError, RequestError, show_value
from tuneyard.core.files import read_object
from tuneyard.core.files.hub import from_hub
from tuneyard.core.language.message import _
from tuneyard.core.llamafactory.prompt.trained_files import TrainedFiles, read_trained
from tuneyard.core.training.training_run import read_provenance, training_settings
from tuneyard.core.weights.adapter_files import check_here
from tuneyard.core.weights.class_defaults import longest_sequence

CUTOFF_LEN, MAX_NEW_TOKENS = 2048, 1024  # LLaMA-Factory's defaults of both settings
SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]  # of a model on the hub, without its weights
Settings = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ServedModels:
    """The base of a server, as `name` and as a folder here, with adapters that share prompt and tokens.

    Without adapters the base is a full model. `trained` has tokenizer, chat template and end tokens.
    `trainings` are the settings of the trainings. `length` is the longest sequence of the trainings in
    tokens, `new_tokens` the answer after it: None without records. `limit` is the base's.
    """

    name: str
    folder: Path
    adapters: Sequence[LoraAdapter]
    trained: TrainedFiles
    trainings: Sequence[Settings]
    length: int | None
    new_tokens: int
    limit: int | None
    notes: Sequence[str]

    @property
    def context(self) -> int | None:
        """Tokens of prompt and answer together, None if neither the trainings nor the base limit them."""
        if self.length is None:
            return self.limit
        context = self.length + self.new_tokens
        if self.limit is None:
            return context
        return min(context, self.limit)


def open_served(
    references: Sequence[str], base: Path | None, *, weights: bool, same_base: bool
) -> ServedModels:
    """Open adapters of one base, or one full model. `weights`: the base's weights are needed here.

    `RequestError` for adapters that one server cannot serve as they were trained, `ContentError` for damaged
    ones and for those that are not merged.
    """
    sources = [open_source(_unweighted(reference), base) for reference in references]
    adapters = [adapter for adapter in (source.lora for source in sources) if adapter]
    if len(adapters) < len(sources) and len(sources) > 1:
        model = next(source.folder for source in sources if not source.adapter)
        raise RequestError(
            _("{model}: a full model is served alone; give adapters, or this model", model=model)
        )
    names = [adapter.name for adapter in adapters]
    for name in names:
        if names.count(name) > 1:
            raise RequestError(
                _(
                    "{name}: {number} adapters have this name; rename one's folder",
                    name=name,
                    number=names.count(name),
                )
            )
    name, folder = _base_of(sources, weights=weights)
    # Without --base, the base is the one that the adapter itself names.
    notes = check_fit(adapters, folder, same_base=same_base or base is None)
    trained = _trained(sources, folder)
    trainings, lengths, answers = [], [], []
    for source in sources:
        for settings in _trainings(source.folder, notes):
            _check_training(settings, folder)
            trainings.append(settings)
            lengths.append(_whole(settings, "cutoff_len", CUTOFF_LEN, source.folder))
            answers.append(_whole(settings, "max_new_tokens", MAX_NEW_TOKENS, source.folder))
    if any(settings.get("quantization_bit") for settings in trainings):
        notes.append("trained on a quantised base (QLoRA), and served on the base as its files are")
    return ServedModels(
        name=name,
        folder=folder,
        adapters=adapters,
        trained=trained,
        trainings=trainings,
        length=max(lengths, default=None),
        new_tokens=max(answers, default=MAX_NEW_TOKENS),
        limit=_limit(folder),
        notes=notes,
    )


def _trained(sources: Sequence[ExportSource], base: Path) -> TrainedFiles:
    """Tokenizer, chat template and end tokens of all sources; `RequestError` if they differ."""
    trained = [read_trained(source.folder, base if source.adapter else None) for source in sources]
    first = trained[0]
    for source, other in zip(sources, trained, strict=True):
        if (other.ids, other.special) != (first.ids, first.special):
            raise _differs(sources[0], source, "tokenizers")
        if other.template_text != first.template_text:
            raise _differs(sources[0], source, "chat templates")
    return first


def _unweighted(text: str) -> str:
    reference, _unused = parse_optional_weight(text)
    if reference != text:
        raise RequestError(
            _(
                "{text!r}: a server takes adapters without weights; merge them, and serve the "
                "result: tuneyard adapter merge {word} … --out saves/NAME",
                text=text,
                word=shlex.quote(text),
            )
        )
    return reference


def _base_of(sources: Sequence[ExportSource], *, weights: bool) -> tuple[str, Path]:
    """Name and folder of the base, downloaded if it is on the hub."""
    bases: dict[str, tuple[str, Path | None]] = {}
    for source in sources:
        if source.adapter is None:
            bases[str(source.folder.resolve())] = str(source.folder), source.folder
        elif source.base is not None:
            bases[str(source.base.resolve())] = str(source.base), source.base
        elif source.adapter.config.base is None:
            raise RequestError(
                _("{folder}: names no base model; give it with --base DIR", folder=source.folder)
            )
        else:
            check_here(source.adapter.config.path, source.adapter.config.base, "--base")
            bases[source.adapter.config.base] = source.adapter.config.base, None
    if len(bases) > 1:
        names = ", ".join(name for name, _unused in bases.values())
        raise RequestError(
            _(
                "the adapters have different base models ({names}): serve those of each base on "
                "their own; if all are the same model, name it with --base DIR",
                names=names,
            )
        )
    ((name, folder),) = bases.values()
    if folder is None:
        patterns = [*SMALL_FILES, "*.safetensors"] if weights else SMALL_FILES
        folder = from_hub(name, "name the base's folder with --base DIR", allow_patterns=patterns)
    return name, folder


def _trainings(folder: Path, notes: list[str]) -> Iterator[Settings]:
    """Settings of the training of an adapter, or of the parts of a merge, also of those that are merges.

    Nothing without records. A part that is gone or has changed gets a note.
    """
    settings = training_settings(folder)
    if settings:
        yield settings
        return
    record = read_provenance(folder)
    if record is None:
        return
    for part in open_parts(record):
        if part.adapter:
            yield from _trainings(part.adapter.folder, notes)
        else:
            notes.append(_("the training of an adapter in it is not known: {problem}", problem=part.problem))


def _check_training(settings: Settings, base: Path) -> None:
    scaling = settings.get("rope_scaling")
    config = read_object(base / "config.json")
    if scaling and not config.get("rope_scaling") and "factor" not in str(config.get("rope_parameters")):
        raise ContentError(
            _(
                "{place}: no rope_scaling, but the training had {value}; llamafactory-cli export "
                "writes a model that has it, and can be served",
                place=base / "config.json",
                value=show_value(scaling),
            )
        )


def _whole(settings: Settings, name: str, default: int, folder: Path) -> int:
    """A setting that is a number of tokens. `ContentError` if the training's record has none above 0."""
    value = settings.get(name)
    if value is None:
        return default
    raise_together(
        wrong_numbers({name: value}, whole=True), _("{folder}: in the record of its training", folder=folder)
    )
    return int(value)


def _limit(base: Path) -> int | None:
    """The base's longest sequence by its config.json or its class, None if both have no limit."""
    return longest_sequence(read_object(base / "config.json"))


def _differs(one: ExportSource, other: ExportSource, parts: str) -> RequestError:
    return RequestError(
        _(
            "{one} and {other} were trained with different {parts}: serve each on its own",
            one=one.folder,
            other=other.folder,
            parts=parts,
        )
    )
