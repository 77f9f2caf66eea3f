"""Fusing: base + Σ wᵢ·ΔWᵢ as a full model, shard by shard; what is not touched is copied in the kernel."""

import functools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneyard.adapters import output
from tuneyard.adapters.card import CARD, card_text
from tuneyard.adapters.delta import Change, Product, Retained, apply, total
from tuneyard.adapters.dora import rescaled
from tuneyard.adapters.experts import ExpertFactors, plan_experts
from tuneyard.adapters.modules_to_save import FullTensor, plan_full_tensors
from tuneyard.adapters.provenance import MERGE, provenance
from tuneyard.adapters.request import FuseRequest
from tuneyard.adapters.shards import Piece, Shard, plan_shards, write_index, write_shard
from tuneyard.adapters.weighted import WeightedAdapter, check_bases, factors_of, notes, open_weighted, union
from tuneyard.core.base_models import EMBEDDINGS, HEADS, INDEX, Base, open_base
from tuneyard.core.errors import ContentError, need
from tuneyard.core.files import read_object, write_json, write_text
from tuneyard.core.weights import Stored, from_fp32, require_finite, to_fp32

MUCH_LOST = 0.1  # of ‖ΔW‖; below it bf16 rounding is as good as invisible in the adapters' own effect
RECORD = "fuse.json"
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx", ".ot")


@dataclass(frozen=True, slots=True)
class FusePlan:
    """What fusing will write; `modules`, `experts` and `full_tensors` say by tensor name what changes it."""

    request: FuseRequest
    weighted: list[WeightedAdapter]
    base: Base
    shards: list[Shard]
    modules: dict[str, str]
    experts: dict[str, list[ExpertFactors]]
    full_tensors: dict[str, FullTensor]
    config: dict[str, object]
    notes: list[str]
    check: output.Check

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    def lines(self) -> list[str]:
        """Return one line on what would be written, and one for each file."""
        weights = "  ".join(f"{reference}={weight:g}" for reference, weight in self.request.adapters)
        changed = len(self.modules) + len(self.experts)
        return [
            f"fuse  {weights}  into {self.request.base}  modules {changed}  "
            f"shards {len(self.shards)}  {self.bytes / 1e9:.2f} GB",
            *(f"  {one.name}  {len(one.pieces)} tensors  {one.bytes / 1e9:.2f} GB" for one in self.shards),
        ]

    def write(self, progress: output.Progress) -> list[str]:
        """Write it and return what to say of it."""
        return retained_lines(self, fuse(self, progress))


def plan_fusing(request: FuseRequest) -> FusePlan:
    """Open base and adapters, check that they belong together, and return what would be written."""
    weighted = open_weighted(request.adapters, with_base=True)
    inputs = [*(item.adapter.folder for item in weighted), request.base]
    check = functools.partial(output.check_output, request.out, inputs, "fuse", force=request.force)
    check()
    base = open_base(request.base)
    if base.config.get("quantization_config"):
        raise ContentError(
            f"{base.folder}: its weights are quantised; fuse into the unquantised model "
            "(--base-as nf4 for an adapter trained by QLoRA)"
        )
    if request.base_as:
        need("bitsandbytes", "torch")
    used = [item for item in weighted if item.weight]
    unchecked = list(check_bases(base, weighted, same=request.same_base))
    whole = [w for w in plan_full_tensors(used, base, "F32") if w.base]
    modules = {base.stored_name(f"{path}.weight"): path for path in union(used)}
    experts = plan_experts(used, base)
    full_tensors = {base.stored_name(w.name.replace(".base_layer.", ".")): w for w in whole}
    targets = [*modules, *full_tensors]
    untied = base.tied and any(name.endswith((*EMBEDDINGS, *HEADS)) for name in targets)
    embedding = next((name for name in base.tensors if name.endswith(EMBEDDINGS)), None)
    head = next((name for name in targets if name.endswith(HEADS)), HEADS[0])
    copied = untied and head not in base.tensors and (embedding in targets or head in targets)
    copies = {head: embedding} if copied and embedding else {}
    shapes = {name: one.shape for name, one in full_tensors.items()}
    shards = plan_shards(base, request.dtype, copies, shapes, request.max_shard)
    tied = f"tied embeddings: {head} written as a tensor of its own, tying switched off"
    said = [*notes(weighted), *([tied] if copies else []), *unchecked]
    config = _config(request, base, untied, _vocabulary(shards))
    plan = FusePlan(request, used, base, shards, modules, experts, full_tensors, config, said, check)
    output.require_space(request.out.resolve(), plan.bytes)
    return plan


def _vocabulary(shards: list[Shard]) -> int | None:
    """Return the rows of embedding and head where they grow, None where not; they must grow alike."""
    pieces = [p for shard in shards for p in shard.pieces if p.name.endswith((*EMBEDDINGS, *HEADS))]
    if all(piece.shape == piece.source.shape for piece in pieces):
        return None
    if len({piece.shape[0] for piece in pieces}) > 1:
        rows = ", ".join(f"{piece.name} {piece.shape[0]}" for piece in pieces)
        differing = "embedding and head would differ in their rows"
        raise ContentError(f"{differing}: {rows}; both must be in the adapter")
    return pieces[0].shape[0]


def _config(request: FuseRequest, base: Base, untied: bool, rows: int | None) -> dict[str, object]:
    """Return the base's config.json with what fusing changes: dtype, rows, and tying where it is undone."""
    changes: dict[str, object] = {"tie_word_embeddings": False} if untied else {}
    changes |= {"vocab_size": rows} if rows else {}
    changes |= {"torch_dtype": "float32", "dtype": "float32"} if request.dtype == "F32" else {}
    config = base.config | {field: value for field, value in changes.items() if field in base.config}
    if isinstance(nested := config.get("text_config"), dict):
        config["text_config"] = nested | {f: value for f, value in changes.items() if f in nested}
    return config | ({"tie_word_embeddings": False} if untied else {})


def fuse(plan: FusePlan, progress: output.Progress) -> dict[str, Retained]:
    """Write a planned model as one folder, its config last; return by module what is retained of ΔW.

    A shard appears under its name when it is complete and synced, and is then noted in the record with the
    `Retained` of its modules, so that a killed run resumes behind it. `progress` is given bytes.
    """
    with output.resumable(plan.check) as folder:
        record = _resume(plan, folder)
        for shard in plan.shards:
            if shard.name in record["shards"]:
                progress(shard.bytes)
                continue
            retained: dict[str, list[Retained]] = {}
            partial = folder / f"{shard.name}.partial"
            for count in write_shard(partial, shard, functools.partial(_blocks, plan, retained)):
                progress(count)
            partial.replace(folder / shard.name)
            record["shards"][shard.name] = {module: total(counts) for module, counts in retained.items()}
            write_json(folder / RECORD, record)
        (folder / RECORD).unlink()
        shards = record["shards"].values()
        found = {module: Retained(*sums) for one in shards for module, sums in one.items()}
        for file in sorted(plan.base.folder.iterdir()):
            left_out = file.suffix in WEIGHT_SUFFIXES or file.name in (CARD, MERGE, "config.json", INDEX)
            if file.is_file() and not file.name.startswith(".") and not left_out:
                shutil.copyfile(file, folder / file.name)
        output.carry_tokenizer([item.adapter.folder for item in plan.weighted], folder, "the base's taken")
        write_index(folder, plan.shards)
        provenance_record = fuse_record(plan, found)
        write_json(folder / MERGE, provenance_record)
        write_text(folder / CARD, card_text(provenance_record))
        write_json(folder / "config.json", plan.config)
    return found


def retained_lines(plan: FusePlan, retained: dict[str, Retained]) -> list[str]:
    """Return the retained fraction of ΔW over all modules, and what to do where much is lost."""
    overall = total(retained.values())
    lines = [
        f"retained fraction of ΔW {overall.fraction:.1%}, relative Frobenius error {overall.error:.1e}, "
        f"{overall.unchanged_share:.1%} of the elements unchanged (by module in README.md)"
    ]
    if overall.error > MUCH_LOST and plan.request.dtype != "F32":
        lines.append(
            f"note: {overall.error:.0%} of ΔW is rounded away: write --dtype fp32, or serve the adapter "
            "unmerged, which is exact"
        )
    return lines


def fuse_record(plan: FusePlan, retained: dict[str, Retained]) -> dict[str, object]:
    """The content of merge.json."""
    overall = total(retained.values())
    details = {
        "dtype": "fp32" if plan.request.dtype else None,
        "base_as": plan.request.base_as,
        "result": {**_shares(overall), "modules": {path: _shares(one) for path, one in retained.items()}},
    }
    return provenance("fuse", plan.weighted, plan.base, details)


def _shares(retained: Retained) -> dict[str, float]:
    return {
        "retained": retained.fraction,
        "error": retained.error,
        "unchanged": retained.unchanged_share,
    }


def _resume(plan: FusePlan, folder: Path) -> dict[str, Any]:
    """Return the record of an interrupted run of the same plan, else empty the folder and begin one."""
    files = [shard.path.stat() for shard in plan.base.shards.values()]
    wanted = {
        "base": [[name, s.st_size, s.st_mtime_ns] for name, s in zip(plan.base.shards, files, strict=True)],
        "adapters": [[item.adapter.digest, item.weight] for item in plan.weighted],
        "options": [plan.request.dtype, plan.request.base_as, plan.request.max_shard],
    }
    path = folder / RECORD
    found = read_object(path) if path.is_file() else {}
    if found.get("plan") == wanted:
        return found
    for file in folder.iterdir():
        file.unlink()
    record = {"plan": wanted, "shards": {}}
    write_json(path, record)
    return record


def _blocks(plan: FusePlan, retained: dict[str, list[Retained]], piece: Piece) -> Iterator[Stored] | None:
    """Return a tensor's new values, None where it keeps its own; `retained` gets what is kept of ΔW."""
    if piece.name in plan.full_tensors:
        stored = from_fp32(plan.full_tensors[piece.name].read(), piece.dtype)
        require_finite(to_fp32(stored, piece.dtype), f"{piece.name}: in {piece.dtype}")
        return iter([stored])
    # bitsandbytes holds linear layers but the head in NF4, and no bare parameters
    linear = piece.name.endswith(".weight") and not piece.name.endswith((*EMBEDDINGS, *HEADS))
    base_as = plan.request.base_as if linear and len(piece.source.shape) == 2 else None
    if piece.name in plan.experts:
        factors = plan.experts[piece.name]
        changes = [each.change() for each in factors]
        return apply(piece, changes, None, retained.setdefault(factors[0].parameter.path, []))
    if piece.name not in plan.modules:
        if not base_as and piece.dtype == piece.source.dtype:
            return None
        return apply(piece, [], base_as, [])
    path = plan.modules[piece.name]
    return apply(piece, _changes(plan, piece, path, base_as), base_as, retained.setdefault(path, []))


def _changes(plan: FusePlan, piece: Piece, path: str, base_as: str | None) -> list[Change]:
    """ΔW of a module: the sum of the plain LoRA factors, and one change for each DoRA adapter."""
    holders = [item for item in plan.weighted if path in item.adapter.layout]
    transposed = holders[0].adapter.transposed(path)
    changes: list[Change] = []
    plain = [item for item in holders if not item.adapter.lora.dora]
    if plain:
        changes.append(_product(plain, path, transposed))
    for item in holders:
        if item.adapter.lora.dora:
            product = _product([WeightedAdapter(item.adapter, 1.0)], path, transposed)
            magnitude = item.adapter.magnitude(path)
            changes.append(
                rescaled(piece.source, base_as, product, magnitude, item.weight, transposed=transposed)
            )
    return changes


def _product(weighted: list[WeightedAdapter], path: str, transposed: bool) -> Product:
    a, b = factors_of(weighted, path).exact
    return Product(a.T, b.T) if transposed else Product(b, a)
