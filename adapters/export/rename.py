"""Rename the tensors of an adapter: a copy with the names that PEFT reads, or with those of a base.

The values keep their bytes. The config is written for the new names, and the other small files are copied.
`rename` does what a request asks for: `plan_renaming` opens everything and plans, `write_copy` writes.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.adapters.model.lora import LoraConfig
from tuneyard.adapters.model.provenance import CARD
from tuneyard.adapters.model.store import find_folder, kind_of, require_config
from tuneyard.adapters.write import output
from tuneyard.adapters.write.inputs import (
    TENSOR_NAMES,
    Inputs,
    PresentInputs,
    folder_inputs,
    hashes_of,
    record_state,
)
from tuneyard.core.datasets.trained_examples import write_union
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.execution.state import NEW, State
from tuneyard.core.files import json_text, read_object, text_sha256
from tuneyard.core.files.bounded_reading import read_regular
from tuneyard.core.files.links import check_own_files, own_file
from tuneyard.core.language.message import _, counted
from tuneyard.core.training.training_run import SETTINGS, STARTED, TRAINING, record_folders
from tuneyard.core.weights.adapter_files import CONFIG, PREFIX, WEIGHTS, WEIGHTS_INDEX, open_weight_files
from tuneyard.core.weights.adapter_names import core_of, paths_in_base, peft_name
from tuneyard.core.weights.base_compatibility import shapes_of
from tuneyard.core.weights.base_models import open_base
from tuneyard.core.weights.tensors import Tensor, header_bytes

COPIED = (".json", ".jinja", ".md", ".model", ".txt", ".yaml")
"""Suffixes of the files next to the weights that are copied."""
LARGEST = 64 * 2**20  # bytes of such a file: tokenizer.json has some 30 MB
BLOCK = 2**22
RECORD = "rename.json"  # what the copy was made of
NARROWING = ("exclude_modules", "layers_to_transform", "layers_pattern")


@dataclass(frozen=True, slots=True)
class RenameRequest:
    """A `rename` command: an adapter by its reference, and the `base` whose names the copy gets."""

    reference: str
    out: Path
    base: Path | None = None


@dataclass(frozen=True, slots=True)
class RenamePlan:
    """A checked renaming: each tensor with its new name, in the order of writing.

    `for_base`: the names are those of a base. It may have further modules that names of the config fit.
    """

    request: RenameRequest
    folder: Path
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    renamed: int
    for_base: bool
    check: output.Check
    notes: Sequence[str] = ()

    @property
    def bytes(self) -> int:
        """Size of all tensors."""
        return sum(tensor.stop - tensor.start for tensor in self.tensors.values())

    def write(self, progress: output.Progress) -> output.Written:
        """Write the copy, and say how many tensors have another name."""
        notes = write_copy(self, progress)
        line = _(
            "{renamed} of {tensors} renamed",
            renamed=counted(self.renamed, "tensor", "tensors"),
            tensors=len(self.tensors),
        )
        return output.Written(self.request.out, [line], notes)


def rename(request: RenameRequest) -> output.Written:
    """Write a copy of an adapter with other names, unless `request.out` has it already.

    Errors are those of `plan_renaming`.
    """
    plan = functools.partial(plan_renaming, request)
    return output.make(request.out, state(request), plan, output.no_progress)


def state(request: RenameRequest) -> State:
    """How far the result of a request is, by the hashes in its rename.json. No tensor is read."""
    if not output.is_there(request.out):
        return NEW
    present = functools.partial(_inputs, request)
    return record_state(request.out / RECORD, "rename", request.out, present)


def _inputs(request: RenameRequest) -> PresentInputs:
    """The inputs of a copy for rename.json: the copied files, and the names of the base's tensors."""
    folder = find_folder(request.reference)
    weights = open_weight_files(folder)
    files = {tensor.file for tensor in weights.tensors.values()}
    folders = [folder_inputs("adapter", folder, [folder / CONFIG, *files, *_small_files(folder)])]
    places = [folder]
    if request.base:
        names = sorted(open_base(request.base).tensors)
        folders.append(folder_inputs("base", request.base, [], {TENSOR_NAMES: text_sha256(json_text(names))}))
        places.append(request.base)
    return PresentInputs(Inputs(options={}, folders=folders), places)


def plan_renaming(request: RenameRequest) -> RenamePlan:
    """Open an adapter and give each tensor its new name.

    Without a base the names are those of PEFT. With it the parts in front of the layers are the base's.
    `RequestError` if there is nothing to rename, `ContentError` if two tensors would have one name.
    """
    reference, base, out = request.reference, request.base, request.out
    folder = find_folder(reference)
    config = read_object(require_config(folder))
    weights = open_weight_files(folder)
    files = {tensor.file.name for tensor in weights.tensors.values()}
    check_own_files(folder, [CONFIG, *sorted(files)])
    names = {name: peft_name(name) for name in weights.tensors}
    paths = {name: _path_of(plain) for name, plain in names.items()}
    if base:
        in_base = _paths_in(base, set(paths.values()), folder)
        for name, path in paths.items():
            rest = names[name].removeprefix(PREFIX + path)
            names[name] = PREFIX + in_base.get(path, path) + rest
    tensors: dict[str, Tensor] = {}
    for name, new_name in names.items():
        if new_name in tensors:
            raise ContentError(
                _(
                    "{path}: {name} and {other} would both be {plain}: several adapters in one file; "
                    "save each on its own with PEFT's save_pretrained",
                    path=weights.path,
                    name=tensors[new_name].name,
                    other=name,
                    plain=new_name,
                )
            )
        tensors[new_name] = weights.tensors[name]
    renamed = sum(name != new_name for name, new_name in names.items())
    if not renamed:
        if base:
            raise RequestError(_("{folder}: its names are right already", folder=folder))
        raise RequestError(
            _(
                "{folder}: its names are right already; give --base DIR for the names of another class of "
                "the model",
                folder=folder,
            )
        )
    check = functools.partial(output.check_output, out, [folder], "rename", force=False)
    check(changes=lambda: state(request).changes)
    list(_small_files(folder))  # refuses links before anything is written
    by_name = dict(sorted(tensors.items()))
    plan = RenamePlan(request, folder, by_name, config, renamed, base is not None, check)
    output.require_space(out.resolve(), plan.bytes)
    return plan


def _paths_in(base: Path, paths: set[str], folder: Path) -> Mapping[str, str]:
    """The path in the base of each module; `ContentError` if the base lacks one under any name."""
    model = open_base(base)
    base_paths = shapes_of(model).keys()
    in_base = paths_in_base(paths, base_paths)
    if in_base or paths <= base_paths:
        return in_base
    cores = {core_of(path) for path in base_paths}
    for path in sorted(paths):
        if core_of(path) not in cores:
            raise ContentError(
                _(
                    "{adapter}: {path}: {base} has no such module under any name: another base? Name its own",
                    adapter=folder,
                    path=path,
                    base=base,
                )
            )
    raise ContentError(
        _(
            "{adapter}: {base} has several modules of these names, with other parts in front: "
            "name them by hand",
            adapter=folder,
            base=base,
        )
    )


def _path_of(name: str) -> str:
    """The module of a tensor of an adapter: its name without PEFT's prefix and its last parts."""
    path = name.removeprefix(PREFIX)
    for part in (".lora_", ".oft_", ".base_layer.", ".modules_to_save.", ".original_module."):
        path = path.partition(part)[0]
    if path == name.removeprefix(PREFIX):
        return path.rpartition(".")[0]
    return path


def write_copy(plan: RenamePlan, progress: output.Progress) -> list[str]:
    """Write the copy of a plan. The result has notes; `progress` is called with bytes."""
    notes: list[str] = []
    with output.staged_for(plan.check, notes) as staged:
        specs = [(name, tensor.dtype, tensor.shape) for name, tensor in plan.tensors.items()]
        with (staged / WEIGHTS).open("xb") as file:
            file.write(header_bytes(specs))
            for tensor in plan.tensors.values():
                for block in _blocks(tensor):
                    file.write(block)
                    progress(len(block))
        for source in _small_files(plan.folder):
            (staged / source.name).write_bytes(read_regular(source))
        notes += write_union(staged, [plan.folder])
        (staged / CONFIG).write_text(json_text(_renamed_config(plan)), encoding="utf-8")
        _check(staged, plan)
        outputs = hashes_of(file for file in staged.iterdir() if file.name != CARD)
        record = {"command": "rename", "inputs": _inputs(plan.request).inputs, "outputs": outputs}
        (staged / RECORD).write_text(json_text(record), encoding="utf-8")
    return notes


def _check(staged: Path, plan: RenamePlan) -> None:
    """Open the copy as every command does. A `ContentError` names the adapter that was given."""
    try:
        kind_of(plan.config, plan.folder / CONFIG).open(staged, read_object(staged / CONFIG))
    except ContentError as error:
        raise ContentError(str(error).replace(str(staged), str(plan.folder))) from error


def _blocks(tensor: Tensor) -> Iterator[bytes]:
    """Yield the bytes of a tensor, some at a time."""
    remaining = tensor.stop - tensor.start
    with tensor.file.open("rb") as file:
        file.seek(tensor.start)
        while remaining:
            block = file.read(min(BLOCK, remaining))
            if not block:
                raise ContentError(_("{file}: the file became shorter while it was read", file=tensor.file))
            remaining -= len(block)
            yield block


def _small_files(folder: Path) -> Iterator[Path]:
    """Yield the files to copy: tokenizer, template, card, and the records of the training.

    `ContentError` for a link out of the folder. A checkpoint has the records in the folder above. The copy is
    no checkpoint, so it gets them.
    """
    names = set()
    for path in sorted(folder.iterdir()):
        if path.suffix not in COPIED or path.name in (CONFIG, WEIGHTS_INDEX, RECORD):
            continue
        if own_file(path).is_file() and path.stat().st_size <= LARGEST:
            names.add(path.name)
            yield path
    for record_folder in record_folders(folder.resolve())[1:]:
        for name in (TRAINING, STARTED, *SETTINGS):
            if name not in names and (record_folder / name).is_file():
                yield record_folder / name


def _renamed_config(plan: RenamePlan) -> dict[str, Any]:
    """The config for the new names. Patterns on paths are replaced by what they mean for each module."""
    config = dict(plan.config)
    checked = kind_of(config, plan.folder / CONFIG).read_config(plan.folder / CONFIG, config)
    old_paths = {}
    for name, tensor in plan.tensors.items():
        if any(part in name for part in (".lora_", ".oft_")):
            old_paths[_path_of(name)] = _path_of(peft_name(tensor.name))
    targets = config.get("target_modules")
    is_narrowed = any(config.get(field) for field in NARROWING)
    are_names = isinstance(targets, list) and not is_narrowed and not plan.for_base
    if not are_names or any(not checked.targets(path) for path in old_paths):
        config["target_modules"] = sorted(old_paths)
        config.update(dict.fromkeys(NARROWING))
    if isinstance(checked, LoraConfig):
        for field, of_module in (("rank_pattern", checked.rank_of), ("alpha_pattern", checked.alpha_of)):
            if config.get(field):
                config[field] = {path: of_module(old_path) for path, old_path in old_paths.items()}
    return config
