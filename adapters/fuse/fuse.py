"""Fuse adapters: base + Σ wᵢ·ΔWᵢ as a full model, shard by shard. The kernel copies unchanged tensors.

`fuse_request` reads the command line. `fuse` does what a request asks for: `plan_fusing` opens everything,
checks it and plans, `write_model` writes the plan.
"""

import contextlib
import functools
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tuneyard.adapters.fuse.rounding import Retained, apply, total
from tuneyard.adapters.fuse.shards import Piece, Shard, plan_shards, write_index, write_shard
from tuneyard.adapters.model.adapter import Adapter
from tuneyard.adapters.model.change import summed
from tuneyard.adapters.model.provenance import CARD, Datasets, card_text, provenance, training_datasets
from tuneyard.adapters.model.store import fetched_base, open_any
from tuneyard.adapters.model.unlearned import unlearned_modules, unlearned_note
from tuneyard.adapters.model.weighted import (
    Weighted,
    check_base_names,
    check_inputs,
    open_base_of,
    open_weighted,
    parse_optional_weight,
)
from tuneyard.adapters.write import output
from tuneyard.adapters.write.carried_tokenizer import PROMPT_FILES, carry_tokenizer, write_ends
from tuneyard.adapters.write.inputs import (
    Inputs,
    PresentInputs,
    Value,
    folder_inputs,
    hashes_of,
    model_files,
    prompt_files,
    record_state,
    weighted_inputs,
)
from tuneyard.adapters.write.modules_to_save import FullTensor, plan_full_tensors
from tuneyard.core.datasets.trained_examples import write_union
from tuneyard.core.errors import ContentError, RequestError, need
from tuneyard.core.execution.state import NEW, UNFINISHED, State
from tuneyard.core.files import Fields, file_sha256, read_object, write_json, write_text
from tuneyard.core.files.links import check_own_files
from tuneyard.core.language.message import _, counted
from tuneyard.core.llamafactory.prompt.trained_files import read_trained
from tuneyard.core.training.training_run import (
    MERGE,
    STARTED,
    TRAINED_ROWS,
    TRAINING,
    record_of,
    training_inputs,
)
from tuneyard.core.weights.base_models import Base
from tuneyard.core.weights.class_defaults import text_config, text_key, untied, with_vocabulary
from tuneyard.core.weights.dtypes import DTYPES, STORED_DTYPES
from tuneyard.core.weights.tensors import Stored, from_fp32, require_finite, to_fp32, workers

MUCH_LOST = 0.1  # of ‖ΔW‖; a smaller rounding error in bf16 hardly changes the adapters' effect
RECORD = "fuse.json"


@dataclass(frozen=True, slots=True)
class FuseRequest:
    """A `fuse` command: `dtype` None keeps the base's dtypes, `max_shard` is in bytes."""

    adapters: Sequence[tuple[str, float]]
    base: Path
    out: Path
    dtype: str | None = None
    base_as: str | None = None
    max_shard: int | None = None
    force: bool = False
    same_base: bool = False


@dataclass(frozen=True, slots=True)
class FusePlan:
    """A checked fusion. `modules` and `full_tensors` name the change of each changed tensor.

    `is_unlearned`: ΔW is 0 in all modules.
    `weighted` has no adapters with weight 0. `datasets` lists the training datasets of each adapter.
    """

    request: FuseRequest
    weighted: list[Weighted[Adapter]]
    datasets: list[Datasets]
    base: Base
    shards: list[Shard]
    modules: dict[str, str]
    full_tensors: dict[str, FullTensor]
    config: dict[str, object]
    is_unlearned: bool
    notes: list[str]
    check: output.Check

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def lines(self) -> list[str]:
        """One line on the whole model, and one for each file."""
        weights = "  ".join(f"{reference}={weight:g}" for reference, weight in self.request.adapters)
        lines: list[str] = [
            _(
                "fuse  {weights}  into {base}  modules {modules}  shards {shards}  {size:.2f} GB",
                weights=weights,
                base=self.request.base,
                modules=len(self.modules),
                shards=len(self.shards),
                size=self.bytes / 1e9,
            )
        ]
        for shard in self.shards:
            tensors = len(shard.pieces)
            lines.append(
                _(
                    "  {file}  {number} tensors  {size:.2f} GB",
                    file=shard.name,
                    number=tensors,
                    size=shard.bytes / 1e9,
                )
            )
        return lines

    def write(self, progress: output.Progress) -> output.Written:
        """Write the model and report the retained fraction of ΔW."""
        notes: list[str] = []
        lines = retained_lines(self, write_model(self, progress, notes))
        return output.Written(self.request.out, lines, notes)


def fuse_request(texts: Sequence[str], options: Mapping[str, Any]) -> FuseRequest:
    """Read a command line. `options` have the names of `FuseRequest`'s fields."""
    fields = dict(options)
    if options["dtype"]:
        fields["dtype"] = DTYPES[options["dtype"]].stored
    if options["max_shard"]:
        fields["max_shard"] = parse_size(options["max_shard"])
    adapters = [parse_optional_weight(text) for text in texts]
    if options["base"] is None:
        fields["base"], fetched = named_base(adapters)
        fields["same_base"] = fetched or options["same_base"]
    return FuseRequest(adapters, **fields)


def named_base(adapters: Sequence[tuple[str, float]]) -> tuple[Path, bool]:
    """The base that all adapters name, and True if it is from the hub, where its folder has another name.

    `ContentError` if they name different ones, `RequestError` if it is neither here nor on the hub.
    """
    weighted = open_weighted(adapters, open_any)
    check_base_names(weighted)
    adapter = weighted[0].adapter
    if adapter.config.base and Path(adapter.config.base, "config.json").is_file():
        return Path(adapter.config.base), False
    return fetched_base(adapter), True


def parse_size(text: str) -> int:
    """Bytes of a size such as `500MB` or `5GB` (powers of ten)."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(KB|MB|GB)", text.strip(), re.IGNORECASE)
    size = 0.0
    if match:
        size = float(match[1]) * {"KB": 10**3, "MB": 10**6, "GB": 10**9}[match[2].upper()]
    if not 1 <= size < math.inf:
        raise RequestError(_("{text!r}: expected a size such as 500MB or 5GB", text=text))
    return int(size)


def fuse(request: FuseRequest, progress: output.Progress = output.no_progress) -> output.Written:
    """Write a base plus adapters as a full model, unless `request.out` has it already.

    `progress` is called with the number of bytes done. Errors are those of `plan_fusing`. An interrupted run
    is resumed by the same request.
    """
    before = NEW if request.force else state(request)
    return output.make(request.out, before, functools.partial(plan_fusing, request), progress)


def state(request: FuseRequest) -> State:
    """How far the result of a request is, by the hashes in its merge.json. No tensor is read.

    Unfinished: an interrupted run of the same request has left shards, which the next run takes over.
    """
    if output.is_there(request.out):
        present = functools.partial(_present_inputs, request)
        return record_state(request.out / MERGE, "fuse", request.out, present)
    interrupted = output.interrupted_folder(request.out.resolve()) / RECORD
    if not interrupted.is_file():
        return NEW
    used, base = _open_inputs(request)
    try:
        is_same = read_object(interrupted).get("plan") == _identity(request, used, base)
    except ContentError:
        is_same = False
    return UNFINISHED if is_same else NEW


def _open_inputs(request: FuseRequest) -> tuple[list[Weighted[Adapter]], Base]:
    """The adapters with a weight and the base, not yet checked against each other."""
    weighted = open_weighted(request.adapters, open_any, request.base)
    return [item for item in weighted if item.weight], open_base_of(weighted, request.base)


def _present_inputs(request: FuseRequest) -> PresentInputs:
    """What a fusion would be made of now."""
    used, base = _open_inputs(request)
    return _inputs(request, used, [training_datasets(item.adapter.folder) for item in used], base)


def _inputs(
    request: FuseRequest, used: Sequence[Weighted[Adapter]], datasets: Sequence[Datasets], base: Base
) -> PresentInputs:
    """The inputs of a fusion for merge.json: of the base all files that are changed or copied."""
    options: dict[str, Value] = {
        "--dtype": STORED_DTYPES[request.dtype].name if request.dtype else None,
        "--base-as": request.base_as,
        "--max-shard-size": request.max_shard,
    }
    folders = [weighted_inputs(item, data) for item, data in zip(used, datasets, strict=True)]
    files = [*model_files(base), *output.companions(base.folder), *prompt_files(base.folder)]
    folders.append(folder_inputs("base", base.folder, files))
    places = [*(item.adapter.folder for item in used), base.folder]
    return PresentInputs(Inputs(options=options, folders=folders), places)


def plan_fusing(request: FuseRequest) -> FusePlan:
    """Open everything that a request names, check it once, and plan."""
    weighted = open_weighted(request.adapters, open_any, request.base)
    base = open_base_of(weighted, request.base)
    weighted = [Weighted(item.adapter.on_base(base), item.weight) for item in weighted]
    used = [item for item in weighted if item.weight]
    for item in used:
        item.adapter.check_weight(item.weight, alone=len(used) == 1)
    datasets = [training_datasets(item.adapter.folder) for item in used]
    inputs = [*(item.adapter.folder for item in weighted), request.base]

    check = functools.partial(output.check_output, request.out, inputs, "fuse", force=request.force)
    check(changes=lambda: state(request).changes)
    output.companions(request.base)  # before the weights are written, which takes long
    for item in weighted:
        check_own_files(item.adapter.folder, PROMPT_FILES)
    if base.config.get("quantization_config"):
        raise ContentError(
            _(
                "{path}: its weights are quantised; fuse into the unquantised model (--base-as nf4 "
                "for an adapter trained by QLoRA)",
                path=base.folder,
            )
        )
    if request.base_as:
        need("bitsandbytes", "torch")
    notes = check_inputs(weighted, base, same_base=request.same_base)
    is_unlearned = True
    for item in used:
        zeros = unlearned_modules(item.adapter, base)
        is_unlearned = is_unlearned and len(zeros) == len(item.adapter.modules)
        if zeros:
            notes.append(unlearned_note(item.adapter, zeros, base))
    for item in used:
        quantised = trained_on_nf4(item.adapter.folder)
        if quantised and quantised != request.base_as:
            notes.append(
                _(
                    "{name} was trained on the base in 4 bits: --base-as {quantised} fuses it "
                    "into the weights that its training saw",
                    name=item.adapter.name,
                    quantised=quantised,
                )
            )

    paths = [path for item in used for path in item.adapter.modules]
    modules = {base.stored_name(f"{path}.weight"): path for path in paths}
    full_tensors = {}
    for tensor in plan_full_tensors(used, base, "F32"):
        if tensor.base:  # copies of the base are in the base
            full_tensors[base.stored_name(tensor.name.replace(".base_layer.", "."))] = tensor
    changed = {*modules, *full_tensors}
    base.require_tying(changed)
    split = {head: table for head, table in base.ties.items() if changed & {head, table}}
    copies = _copies(base, split)
    for name in copies:
        notes.append(
            _("tied embeddings: {name} written as a tensor of its own, tying switched off", name=name)
        )
    shapes = {name: tensor.shape for name, tensor in full_tensors.items()}
    shards = plan_shards(base, request.dtype, copies, shapes, request.max_shard)
    config = _fused_config(request, base, bool(split), _vocabulary(base, shards))
    for item in used:
        read_trained(item.adapter.folder, base.folder)  # damaged files are refused before anything is written
    plan = FusePlan(
        request, used, datasets, base, shards, modules, full_tensors, config, is_unlearned, notes, check
    )
    output.require_space(request.out.resolve(), plan.bytes)
    return plan


def trained_on_nf4(folder: Path) -> str:
    """The `--base-as` of the weights that a QLoRA training of LLaMA-Factory saw; "" for any other adapter."""
    settings: dict[str, Any] = {}
    with contextlib.suppress(ContentError):  # a damaged record does not stop a fusion
        settings = training_inputs(folder).get("settings", {})
    if settings.get("quantization_bit") != 4:
        return ""
    is_bitsandbytes = settings.get("quantization_method", "bnb") in ("bnb", "bitsandbytes")
    if not is_bitsandbytes or settings.get("quantization_type", "nf4") != "nf4":
        return ""
    if settings.get("double_quantization") is False:
        return "nf4"
    return "nf4-double"


def _copies(base: Base, ties: Mapping[str, str]) -> dict[str, str]:
    """{missing tensor: its source} of tied pairs {head: embedding}, of which the checkpoint may have one."""
    copies = {}
    for head, table in ties.items():
        if head not in base.tensors:
            copies[head] = table
        elif table not in base.tensors:
            copies[table] = head
    return copies


def _vocabulary(base: Base, shards: list[Shard]) -> int | None:
    """The new number of rows of embedding and head, None if it stays. Both must have the same number."""
    pieces = [piece for shard in shards for piece in shard.pieces]
    tables = [piece for piece in pieces if piece.name in base.tables]
    if all(piece.shape == piece.source.shape for piece in tables):
        return None
    if len({piece.shape[0] for piece in tables}) > 1:
        rows = ", ".join(f"{piece.name} {piece.shape[0]}" for piece in tables)
        raise ContentError(
            _("embedding and head would differ in their rows: {rows}; both must be in the adapter", rows=rows)
        )
    return tables[0].shape[0]


def _fused_config(request: FuseRequest, base: Base, split: bool, rows: int | None) -> dict[str, Any]:
    """The base's config.json with the changed dtype, number of rows and tying."""
    config: dict[str, Any] = dict(base.config)
    if request.dtype:
        dtypes = dict.fromkeys(("torch_dtype", "dtype"), STORED_DTYPES[request.dtype].torch)
        config = _changed(config, dtypes)
        nested = text_config(config)
        if nested is not None:
            config[text_key(config)] = _changed(nested, dtypes)
    if rows:
        config = with_vocabulary(config, rows)
    if split:
        config = untied(config)
    return config


def _changed(config: Fields, changes: Mapping[str, object]) -> dict[str, object]:
    """Change fields that a config has; its other fields stay."""
    return {field: changes.get(field, value) for field, value in config.items()}


def write_model(plan: FusePlan, progress: output.Progress, notes: list[str]) -> dict[str, Retained]:
    """Write a planned model as one folder. The result is what each module retains of ΔW.

    A complete and synced shard gets its name, and an entry in the record with the `Retained` of its modules.
    The next run resumes after it. `progress` is called with bytes, and `notes` are added to.
    """
    ignored = np.errstate(over="ignore", invalid="ignore")  # `require_finite` refuses infinity
    with output.resumable(plan.check, notes) as folder, ignored, workers(1) as pool:
        arguments = plan.request, plan.weighted, plan.datasets, plan.base
        inputs = pool.submit(_inputs, *arguments)  # hashed during the fusion, as each shard afterwards
        record = _resume(plan, folder)
        for shard in plan.shards:
            if shard.name in record["shards"]:
                progress(shard.bytes)
            else:
                _write_one(plan, shard, folder, progress, record)
            pool.submit(file_sha256, folder / shard.name)
        (folder / RECORD).unlink()
        retained: dict[str, Retained] = {}
        for modules in record["shards"].values():
            for module, counts in modules.items():
                retained[module] = Retained(*counts)
        for file in output.companions(plan.base.folder):
            shutil.copyfile(file, folder / file.name)
        adapters = [item.adapter.folder for item in plan.weighted]
        notes += carry_tokenizer(adapters, folder, _("the base's files are used"))
        write_ends(adapters, folder, plan.base.folder)
        notes += write_union(folder, [*adapters, *_trained_base(plan.base.folder)])
        write_index(folder, plan.shards)
        write_json(folder / "config.json", plan.config)
        hashes = {"inputs": inputs.result().inputs, "outputs": hashes_of(folder.iterdir())}
        provenance_record = fuse_record(plan, retained) | hashes
        write_json(folder / MERGE, provenance_record)
        write_text(folder / CARD, card_text(provenance_record))
    return retained


def _trained_base(folder: Path) -> list[Path]:
    """The base, if it was trained or fused with a record of it: its rows belong to the fused model, too.

    The rows of any other base are unknown, and none of the user's.
    """
    has_record = record_of(folder, (TRAINING, STARTED, MERGE, TRAINED_ROWS)) is not None
    return [folder] if has_record else []


def _write_one(
    plan: FusePlan, shard: Shard, folder: Path, progress: output.Progress, record: dict[str, Any]
) -> None:
    """Write a shard, and enter it into the record of the run."""
    sums: dict[str, list[Retained]] = {}
    partial = folder / f"{shard.name}.partial"
    for count in write_shard(partial, shard, functools.partial(_blocks, plan, sums)):
        progress(count)
    partial.replace(folder / shard.name)
    record["shards"][shard.name] = {module: total(counts) for module, counts in sums.items()}
    write_json(folder / RECORD, record)


def retained_lines(plan: FusePlan, retained: dict[str, Retained]) -> list[str]:
    """Report the retained fraction of ΔW over all modules, with advice if much is lost."""
    overall = total(retained.values())
    if not overall.squares or plan.is_unlearned:  # of an untrained DoRA rounding remains
        return [
            _(
                "ΔW = 0 in all {modules}: their weights are the base's",
                modules=counted(len(retained), "module", "modules"),
            )
        ]
    lines: list[str] = [
        _(
            "retained fraction of ΔW {fraction:.1%}, relative Frobenius error {error:.1e}, "
            "{share:.1%} of the elements unchanged (by module in README.md)",
            fraction=overall.fraction,
            error=overall.error,
            share=overall.unchanged_share,
        )
    ]
    if overall.error > MUCH_LOST and plan.request.dtype != "F32":
        lines.append(
            _(
                "note: rounding changes ΔW by {error:.0%} of its norm: write --dtype fp32, "
                "or serve the adapter unmerged, which is exact",
                error=overall.error,
            )
        )
    return lines


def fuse_record(plan: FusePlan, retained: dict[str, Retained]) -> dict[str, object]:
    """The content of merge.json."""
    overall = total(retained.values())
    modules = {path: _shares(counts) for path, counts in retained.items()}
    details = {
        "dtype": STORED_DTYPES[plan.request.dtype].name if plan.request.dtype else None,
        "base_as": plan.request.base_as,
        "result": {**_shares(overall), "modules": modules},
    }
    return provenance("fuse", plan.weighted, plan.datasets, plan.base, details)


def _shares(retained: Retained) -> dict[str, float]:
    return {
        "retained": retained.fraction,
        "error": retained.error,
        "unchanged": retained.unchanged_share,
    }


def _resume(plan: FusePlan, folder: Path) -> dict[str, Any]:
    """Read the record of an interrupted run of the same plan. Otherwise empty the folder and begin one."""
    identity = _identity(plan.request, plan.weighted, plan.base)
    path = folder / RECORD
    if path.is_file():
        record = read_object(path)
        if record.get("plan") == identity:
            return record
    for file in folder.iterdir():
        file.unlink()
    record = {"plan": identity, "shards": {}}
    write_json(path, record)
    return record


def _identity(request: FuseRequest, used: Sequence[Weighted[Adapter]], base: Base) -> dict[str, object]:
    """What the shards of an interrupted run were made of. The time of a base file counts for its content."""
    files = []
    for name, shard in base.shards.items():
        status = shard.path.stat()
        files.append([name, status.st_size, status.st_mtime_ns])
    return {
        "base": files,
        "adapters": [[item.adapter.digest, item.weight] for item in used],
        "options": [request.dtype, request.base_as, request.max_shard],
    }


def _blocks(plan: FusePlan, sums: dict[str, list[Retained]], piece: Piece) -> Iterator[Stored] | None:
    """New values of a tensor, block by block. None if it does not change.

    Each block adds its `Retained` to `sums`.
    """
    if piece.name in plan.full_tensors:
        stored = from_fp32(plan.full_tensors[piece.name].read(), piece.dtype)
        require_finite(
            to_fp32(stored, piece.dtype), _("{name}: in {dtype}", name=piece.name, dtype=piece.dtype)
        )
        return iter([stored])
    # bitsandbytes quantises linear layers except the head
    is_matrix = piece.name.endswith(".weight") and len(piece.source.shape) == 2
    base_as = None
    if is_matrix and piece.name not in plan.base.tables:
        base_as = plan.request.base_as
    if piece.name in plan.modules:
        path = plan.modules[piece.name]
        adapting = [item for item in plan.weighted if path in item.adapter.modules]
        changes = [item.adapter.change(item.weight, path, piece.source, base_as) for item in adapting]
        return apply(piece, summed(changes), base_as, sums.setdefault(path, []))
    if base_as or piece.dtype != piece.source.dtype:
        return apply(piece, [], base_as, [])
    return None
