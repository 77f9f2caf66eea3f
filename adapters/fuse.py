"""Fusing: base + Σ wᵢ·ΔWᵢ as a full model, shard by shard; what is not touched is copied in the kernel."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.base import EMBEDDINGS, HEADS, Base
from adapters.compatibility import check_bases, transposed
from adapters.delta import Retained, apply, total
from adapters.modules_to_save import FullTensor, plan_full_tensors
from adapters.shards import Piece, Shard, plan_shards, write_shard
from adapters.weighted import WeightedAdapter, active, factors_of, notes, union
from core.errors import ContentError
from core.files import read_object, write_json
from core.packages import need
from core.weights import Stored, from_fp32, require_finite, to_fp32

RECORD = "fuse.json"


@dataclass(frozen=True, slots=True)
class FuseRequest:
    """What a user asked to be fused; `dtype` None keeps the base's, `max_shard` is in bytes."""

    wanted: list[tuple[str, float]]
    base: Path
    out: Path
    dtype: str | None = None
    base_as: str | None = None
    max_shard: int | None = None
    force: bool = False
    same_base: bool = False


@dataclass(frozen=True, slots=True)
class FusePlan:
    """What fusing will write; `modules` and `full_tensors` say by tensor name what changes it.

    `vocabulary` is the number of rows of embedding and head where the adapters enlarge them.
    """

    request: FuseRequest
    weighted: list[WeightedAdapter]
    base: Base
    shards: list[Shard]
    modules: dict[str, str]
    full_tensors: dict[str, FullTensor]
    untied: bool
    vocabulary: int | None
    notes: list[str]

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)


def plan_fuse(weighted: list[WeightedAdapter], request: FuseRequest, base: Base) -> FusePlan:
    """Check that the adapters belong to the base and return what will be written."""
    if base.config.get("quantization_config"):
        raise ContentError(
            f"{base.folder}: its weights are quantised; fuse into the unquantised model "
            "(--base-as nf4 for an adapter trained by QLoRA)"
        )
    if request.base_as:
        need("bitsandbytes", "torch")
    used = active(weighted)
    unchecked = list(check_bases(base, weighted, same=request.same_base))
    whole = [w for w in plan_full_tensors(used, base, "F32") if w.base]
    modules = {base.stored_name(f"{path}.weight"): path for path in union(used)}
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
    return FusePlan(request, used, base, shards, modules, full_tensors, untied, _vocabulary(shards), said)


def _vocabulary(shards: list[Shard]) -> int | None:
    """Return the rows of embedding and head where they grow, None where not; they must grow alike."""
    pieces = [p for shard in shards for p in shard.pieces if p.name.endswith((*EMBEDDINGS, *HEADS))]
    if all(piece.shape == piece.source.shape for piece in pieces):
        return None
    if len({piece.shape[0] for piece in pieces}) > 1:
        rows = ", ".join(f"{piece.name} {piece.shape[0]}" for piece in pieces)
        raise ContentError(
            f"embedding and head would differ in their rows: {rows}; both must be in the adapter"
        )
    return pieces[0].shape[0]


def fused_config(plan: FusePlan) -> dict[str, object]:
    """Return the base's config.json with what fusing changed: dtype, and tying where it was undone."""
    changes: dict[str, object] = {"tie_word_embeddings": False} if plan.untied else {}
    if plan.vocabulary:
        changes["vocab_size"] = plan.vocabulary
    if plan.request.dtype == "F32":
        changes |= {"torch_dtype": "float32", "dtype": "float32"}
    config = plan.base.config
    config = config | {field: value for field, value in changes.items() if field in config}
    if isinstance(nested := config.get("text_config"), dict):
        config["text_config"] = nested | {f: value for f, value in changes.items() if f in nested}
    return config | ({"tie_word_embeddings": False} if plan.untied else {})


def write_fuse(plan: FusePlan, folder: Path, progress: Callable[[int], object]) -> dict[str, Retained]:
    """Write every shard that `folder` does not hold yet; return by module what is retained of ΔW.

    A shard appears under its name when it is complete and synced, and is then noted in the record with the
    `Retained` of its modules, so that a killed run resumes behind it. `progress` is given bytes.
    """
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
    return {module: Retained(*sums) for found in shards for module, sums in found.items()}


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
    # bitsandbytes holds linear layers but the head in NF4
    linear = piece.name.endswith(".weight") and not piece.name.endswith((*EMBEDDINGS, *HEADS))
    base_as = plan.request.base_as if linear and len(piece.source.shape) == 2 else None
    if piece.name not in plan.modules:
        if not base_as and piece.dtype == piece.source.dtype:
            return None
        return apply(piece, None, base_as, [])
    path = plan.modules[piece.name]
    a, b = factors_of(plan.weighted, path).exact
    holder = next(item.adapter for item in plan.weighted if path in item.adapter.layout)
    factors = (a.T, b.T) if transposed(holder, holder.layout[path]) else (b, a)
    return apply(piece, factors, base_as, retained.setdefault(path, []))
