"""What a scoring command takes if it is called bare: what is in the current folder, as `python -m eval.nli`.

| option | what it takes |
|---|---|
| `--dataset` | the held-out rows with labels of each registered dataset |
| `--adapter` | the adapters in saves/ that were trained for these datasets, unless `--model` is given |
| `--model` | the base that the adapters name |
| `--out` | results/nli |

An option that is given stays. `RequestError` names all that is missing, and a command line that works here.
"""

import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneyard.adapters.model.provenance import training_datasets
from tuneyard.adapters.model.store import SAVES, open_adapter
from tuneyard.adapters.model.weighted import open_alone, parse_named
from tuneyard.core.cli.main import CommandLine
from tuneyard.core.datasets import (
    DEFAULT_FOLDER,
    HELD_OUT,
    REGISTRY,
    REPORTING,
    SEPARATORS,
    TRAIN_SPLIT,
    find_dataset,
    read_registry,
    registry_folder,
    stem_of,
)
from tuneyard.core.datasets.bundled_recipes import find_recipe
from tuneyard.core.datasets.scoring_command import scoring_command
from tuneyard.core.documents import read_mapping
from tuneyard.core.errors import RequestError, TuneyardError
from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import _, joined, message_of
from tuneyard.core.language.messages import say
from tuneyard.core.text.quoting import shell
from tuneyard.core.weights.adapter_files import CONFIG, check_here
from tuneyard.eval.models.load import find_model
from tuneyard.eval.scoring.request import OptionValues
from tuneyard.eval.scoring.trainings_here import is_try, unfinished_line, unfinished_trainings

DEEPEST = 3
"""Levels of folders below saves/: LLaMA-Factory's own examples write to saves/MODEL/lora/sft."""
RAW = Path("data/raw")
MODELS = Path("models")
DEMO_BASE = MODELS / "demo-base"
TUTORIAL = ("rte", "mnli")
"""Datasets of the RTE/MNLI tutorial (docs/ways/rte-mnli.md)."""


@dataclass(slots=True)
class FoundHere:
    """The chosen options, what was left out with its reason, and what is missing."""

    datasets: list[str] = field(default_factory=list)
    adapters: list[str] = field(default_factory=list)
    model: str = ""
    left_out: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    fixes: list[str] = field(default_factory=list)
    """Commands that make what is missing, in their order."""


def found_here(command: CommandLine, options: OptionValues, out: Path) -> dict[str, Any]:
    """Complete the options of a bare command, by name, and print what was chosen.

    `RequestError` for adapters of several bases, and if something is missing.
    """
    found = FoundHere()
    names = [Path(path).stem for path in options["data"]] + list(options["datasets"])
    if not names:
        _choose_datasets(found, command, options["dataset_dir"])
        names = found.datasets
    model, adapters = options["model"], list(options["adapters"])
    if model is None and not adapters:
        _choose_adapters(found, names)
        adapters = found.adapters
    if model is None and adapters:
        found.model = _base_of(command, adapters)
        _require_base(found)
    if found.missing:
        raise RequestError(_message(command, found, model))
    added: list[str] = []
    if found.model:
        added += ["--model", found.model]
    for adapter in found.adapters:
        added += ["--adapter", adapter]
    for dataset in found.datasets:
        added += ["--dataset", dataset]
    if options["out"] is None:
        added += ["--out", str(out)]
    for line in found.left_out:
        say(_("not scored: {line}", line=line), to_stderr=True)
    if found.model or found.datasets:
        say(
            _(
                "chosen here: {command} {options}",
                command=command.text(),
                options=shlex.join(added),
            ),
            to_stderr=True,
        )
    return {
        "model": model or found.model,
        "adapters": tuple(adapters),
        "datasets": options["datasets"] or tuple(found.datasets),
    }


def _choose_datasets(found: FoundHere, command: CommandLine, option: Path | None) -> None:
    """Choose the held-out rows of each dataset whose answers are labels; `test` comes before `eval`.

    `RequestError` in a folder of a checkout that is not its root.
    """
    folder = registry_folder(option)
    registered = read_registry(folder)
    for name in _held_out_names(list(registered)):
        try:
            dataset = find_dataset(name, folder)
            fitting = scoring_command(dataset)
        except TuneyardError as error:
            found.left_out.append(message_of(error))
            continue
        if fitting == "nli":
            found.datasets.append(name)
    if found.datasets:
        return
    registry = folder / REGISTRY
    if registry.exists():
        reason = _(
            "{registry} registers no held-out rows whose answers are labels, "
            "such as alpaca_rte_eval; name yours with --dataset NAME or --data FILE",
            registry=registry,
        )
    else:
        root = _root_above()
        if root is not None:
            raise RequestError(
                _(
                    "nothing was scored: there is no {registry} here; run the command at the root of the "
                    "checkout: cd {root} && {command}",
                    registry=registry,
                    root=shlex.quote(str(root)),
                    command=command.text(),
                )
            )
        reason = _("there is no {registry} here", registry=registry)
        if not _is_root(Path()):
            reason = _(
                "{reason}; run the command at the root of the checkout, or name rows with --dataset NAME or "
                "--data FILE",
                reason=reason,
            )
    if _is_root(Path()):
        reason = _(
            "{reason}; `make compile DATA='{datasets}'` makes those of the RTE/MNLI tutorial",
            reason=reason,
            datasets=" ".join(TUTORIAL),
        )
    found.missing.append(_("a dataset: {reason}", reason=reason))
    found.fixes.append(f"tuneyard data compile {shell(_dataset_to_compile())}")


def _root_above() -> Path | None:
    """The nearest folder above with datasets, or that is the root of a checkout. None if this one is such."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / DEFAULT_FOLDER).is_dir() or _is_root(folder):
            return None if folder == here else folder
    return None


def _is_root(folder: Path) -> bool:
    """True for the root of a checkout with the specs of the tutorial."""
    specs = folder / "compiler/specs"
    return (folder / "Makefile").is_file() and all((specs / f"{name}.yaml").is_file() for name in TUTORIAL)


def _held_out_names(registered: Sequence[str]) -> Iterator[str]:
    """Yield the names of held-out rows, one for each dataset: `test` comes before `eval`."""
    stems: dict[str, None] = {}
    for name in registered:
        stem = held_out_stem(name)
        if stem:
            stems[stem] = None
    for stem in stems:
        names = [f"{stem}{separator}{split}" for split in REPORTING for separator in SEPARATORS]
        yield next(name for name in names if name in registered)


def held_out_stem(name: str) -> str:
    """Name of a dataset without its held-out split: alpaca_rte_eval → alpaca_rte. "" for other names."""
    for split in HELD_OUT:
        for separator in SEPARATORS:
            stem = name.removesuffix(f"{separator}{split}")
            if stem != name:
                return stem
    return ""


def _dataset_to_compile() -> str:
    """A bundled spec with labels whose raw files are here, otherwise that of the demo, which has its own."""
    for path in sorted((ROOT / "compiler/specs").glob("*.yaml")):
        if (RAW / path.stem).exists() and "labels" in read_mapping(path, "spec"):
            return path.stem
    return "demo_rte"


def _choose_adapters(found: FoundHere, datasets: Sequence[str]) -> None:
    """Choose the adapters in saves/ that were trained for these datasets, or have no record of that."""
    stems = {held_out_stem(name) or stem_of(name) for name in datasets}
    for folder in adapter_folders():
        try:
            open_alone(folder, open_adapter, None)
        except TuneyardError as error:
            found.left_out.append(message_of(error))
            continue
        option = _adapter_option(folder)
        others = _other_datasets(folder, stems)
        if others:
            found.left_out.append(_("{folder}: trained on {datasets}", folder=folder, datasets=others))
        elif is_try(folder):
            found.left_out.append(
                _("{folder}: a try (by its name); --adapter {option} scores it", folder=folder, option=option)
            )
        else:
            found.adapters.append(option)
    for folder in unfinished_trainings(DEEPEST):
        if not _other_datasets(folder, stems) and not is_try(folder):
            found.left_out.append(unfinished_line(folder))
    if found.adapters:
        return
    adapter = _("an adapter")
    if datasets:
        adapter = _("an adapter for {datasets}", datasets=joined(datasets))
    reason = _("{adapter}: {folder}/ has none", adapter=adapter, folder=SAVES)
    if not SAVES.is_dir():
        reason = _("{adapter}: there is no {folder}/ here", adapter=adapter, folder=SAVES)
    for stem in sorted(stems):
        recipe = find_recipe(f"{stem}_{TRAIN_SPLIT}")
        if recipe is not None:
            reason = _(
                "{reason}; `tuneyard recipe train recipes/{recipe}` trains one",
                reason=reason,
                recipe=shell(recipe.path.name),
            )
            break
    found.missing.append(reason)


def _other_datasets(folder: Path, stems: Collection[str]) -> str:
    """The datasets that a folder was trained on, "" if none is recorded or one of them is of `stems`."""
    trained = [entry["dataset"] for entry in training_datasets(folder)]
    if not stems or any(stem_of(name) in stems for name in trained):
        return ""
    return joined(trained)


def adapter_folders() -> list[Path]:
    """Folders of adapters below saves/, without checkpoints and what lies in another adapter's folder."""
    folders: list[Path] = []
    for depth in range(1, DEEPEST + 1):
        for config in sorted(SAVES.glob("/".join(["[!.]*"] * depth) + f"/{CONFIG}")):
            folder = config.parent
            is_checkpoint = any(part.startswith("checkpoint-") for part in folder.parts)
            if not is_checkpoint and not any(folder.is_relative_to(other) for other in folders):
                folders.append(folder)
    return folders


def _adapter_option(folder: Path) -> str:
    """Value of --adapter: saves/rte is rte, and a deeper folder gets a name of all its parts."""
    parts = folder.relative_to(SAVES).parts
    if len(parts) == 1:
        return parts[0]
    return f"{'-'.join(parts)}={folder}"


def _base_of(command: CommandLine, adapters: Sequence[str]) -> str:
    """The base that these adapters name. `RequestError` if they name several, or one names none."""
    options_by_base: dict[str, list[str]] = {}
    for option in adapters:
        for reference, _unused in parse_named(option)[1]:
            adapter = open_adapter(reference)
            base = adapter.config.base
            if base is None:
                raise RequestError(
                    _(
                        "{folder}: its config names no base: name it with --model, as in {command} "
                        "--model DIR",
                        folder=adapter.folder,
                        command=command.text(),
                    )
                )
            check_here(adapter.config.path, base, "--model")
            options_by_base.setdefault(_same_base(base), []).append(option)
    if len(options_by_base) == 1:
        return next(iter(options_by_base))
    lines = []
    for base, options in options_by_base.items():
        words = [word for option in dict.fromkeys(options) for word in ("--adapter", option)]
        lines.append(f"  {base}: {command.text()} {shlex.join(words)}")
    raise RequestError(
        _(
            "the adapters have {count} bases, and a run scores those of one; choose:\n{commands}",
            count=len(options_by_base),
            commands="\n".join(lines),
        )
    )


def _same_base(base: str) -> str:
    """One spelling of a base's folder; a hub id stays."""
    folder = Path(base)
    if not folder.is_dir():
        return base
    absolute = folder.resolve()
    here = Path.cwd().resolve()
    return str(absolute.relative_to(here)) if absolute.is_relative_to(here) else str(absolute)


def _require_base(found: FoundHere) -> None:
    """Note a base that is neither here nor on the hub. It is downloaded only if nothing else is missing."""
    try:
        if not found.missing or Path(found.model).is_dir():
            find_model(found.model)
        elif not _is_in_the_cache(found.model):
            found.missing.append(
                _(
                    "the base of the adapters: {model} is no folder here and not in the hub's cache",
                    model=found.model,
                )
            )
    except TuneyardError as error:
        found.missing.append(_("the base of the adapters: {error}", error=error))


def _is_in_the_cache(hub_id: str) -> bool:
    """True if the hub's cache has a model. No network is used."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)
    except HFValidationError:
        return False


def _message(command: CommandLine, found: FoundHere, named_model: str | None) -> str:
    """All that is missing, one a line, and one command line that works here."""
    lines: list[str] = [_("nothing was scored; missing here:")]
    lines += [_("  {line}", line=line) for line in found.missing]
    lines += [_("  not scored: {line}", line=line) for line in found.left_out]
    if named_model is not None:
        lines.append(_("this works here: {command}", command=" && ".join([*found.fixes, command.text()])))
        return joined(lines, "\n")
    fixes = list(found.fixes)
    model = _model_here()
    if model is None:
        fixes.append("tuneyard recipe base")
        model = DEMO_BASE
    fixes.append(f"{command.text()} --model {shlex.quote(str(model))}")
    lines.append(_("this works here, with the base alone: {command}", command=" && ".join(fixes)))
    return joined(lines, "\n")


def _model_here() -> Path | None:
    """A model folder below models/, None without any."""
    for config in sorted(MODELS.glob("[!.]*/config.json")):
        if any(config.parent.glob("*.safetensors")) and not (config.parent / CONFIG).is_file():
            return config.parent
    return None
