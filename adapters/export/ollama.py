"""Write what Ollama loads: a GGUF, and the Modelfile that names it.

An adapter is fused into its base first. With --from it becomes a GGUF LoRA for a base that Ollama has.
`export_ollama` does what a request asks for: `plan_ollama` opens everything, checks it and plans, and the
plan writes.
"""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuneyard.adapters.export.gguf_files import (
    GgufExport,
    GgufRequest,
    gguf_type,
    plan_gguf,
    plan_gguf_export,
    plan_model,
)
from tuneyard.adapters.export.modelfile import ModelfileContent, differing_instructions, modelfile_of
from tuneyard.adapters.export.source import (
    GGUF,
    MODELFILE,
    ExportSource,
    begins_with,
    check_file,
    check_gguf,
    is_made_of,
    open_export,
)
from tuneyard.adapters.fuse.fuse import FuseRequest, plan_fusing, trained_on_nf4
from tuneyard.adapters.model.adapter import name_of
from tuneyard.adapters.model.store import fetched_base
from tuneyard.adapters.write.output import (
    Check,
    Progress,
    Written,
    is_there,
    make,
    no_progress,
    require_space,
)
from tuneyard.core.errors import RequestError, need
from tuneyard.core.execution.state import CURRENT, NEW, UNFINISHED, State
from tuneyard.core.files import staging, write_text
from tuneyard.core.files.bounded_reading import read_text
from tuneyard.core.language.message import _
from tuneyard.core.weights.base_models import open_base
from tuneyard.core.weights.tensors import STORED, data_bytes


@dataclass(frozen=True, slots=True)
class OllamaRequest:
    """An `export --to ollama` command: a model or an adapter by its reference, and the Modelfile `out`.

    `base_in_ollama` is the adapter's base there (--from): the GGUF is a LoRA for it. `gguf` is a file of
    `--to gguf` to name in the Modelfile. `parameters` are texts NAME=VALUE.
    """

    reference: str
    out: Path
    base: Path | None = None
    base_in_ollama: str | None = None
    gguf: Path | None = None
    type: str | None = None
    system: str | None = None
    parameters: Sequence[str] = ()
    force: bool = False
    same_base: bool = False


@dataclass(frozen=True, slots=True)
class FusedGguf:
    """A checked adapter whose base is fused with it in fp32 first: `base_as` as for `fuse`."""

    source: ExportSource
    base: Path
    base_as: str | None
    same_base: bool
    out: Path
    type: str
    gguf_bytes: int
    check: Check
    notes: Sequence[str]

    @property
    def bytes(self) -> int:
        """Size of the fused model and of the GGUF."""
        sizes = []
        for tensor in open_base(self.base).tensors.values():
            dtype = "F32" if tensor.dtype in STORED else tensor.dtype
            sizes.append(data_bytes(dtype, tensor.shape))
        return sum(sizes) + self.gguf_bytes

    def write(self, progress: Progress) -> Written:
        """Fuse next to the GGUF, write it from there, and remove the fused model."""
        target = self.check()
        with staging(target.with_name(f"{target.name}.fused")) as staged:
            request = FuseRequest(
                [(str(self.source.folder.resolve()), 1.0)],
                self.base,
                staged / "fused" / name_of(self.source.folder),  # `staged` itself is locked
                dtype="F32",
                base_as=self.base_as,
                same_base=self.same_base,
            )
            plan = plan_fusing(request)
            require_space(target, plan.bytes + self.gguf_bytes)
            fused = plan.write(progress)
            export = plan_model(self.source, request.out, self.type, self.out, self.check)
            written = export.write(progress)
        return replace(written, notes=[*plan.notes, *fused.notes, *export.notes, *written.notes])


@dataclass(frozen=True, slots=True)
class OllamaPlan:
    """A checked Modelfile and its GGUF. `weights` is None if that is there already."""

    request: OllamaRequest
    target: Path
    content: ModelfileContent
    gguf: Path
    weights: GgufExport | FusedGguf | None
    notes: Sequence[str]

    @property
    def bytes(self) -> int:
        """Size of the files that are written, about."""
        return self.weights.bytes if self.weights else 0

    def write(self, progress: Progress) -> Written:
        """Write the GGUF, and then the Modelfile."""
        written = Written(self.request.out)
        if self.weights is not None:
            written = self.weights.write(progress)
        write_text(self.target, self.content.text(_head(self.request, self.gguf)))
        return replace(written, out=self.request.out)


def export_ollama(request: OllamaRequest, progress: Progress = no_progress) -> Written:
    """Write a GGUF next to a Modelfile, or name the one of --gguf in it, unless both are there already.

    `progress` is called with the number of bytes done. Errors are those of `plan_ollama`.
    """
    before = NEW if request.force else state(request)
    return make(request.out, before, functools.partial(plan_ollama, request), progress)


def state(request: OllamaRequest) -> State:
    """How far the result of a request is: the Modelfile by its text, the GGUF by the source that it names.

    Unfinished: an interrupted run has left the GGUF of the same source and no Modelfile. A GGUF has no hash
    of its own tensors, so that an edit of these is not noticed.
    """
    if request.out.is_dir():
        return State("stale", (_("{path} is a folder", path=request.out),))
    source = _open(request)
    gguf = request.gguf or _weights_file(request, source)
    if not is_there(request.out):
        if request.gguf is None and gguf.is_file() and is_made_of(gguf, _digest(request, source)):
            return UNFINISHED
        return NEW
    if not begins_with(request.out, MODELFILE):
        return State("stale", (_("{path} is no Modelfile", path=request.out),))
    content = modelfile_of(_with_base(request, source), request.system, request.parameters)
    expected = content.text(_head(request, gguf))
    names = differing_instructions(read_text(request.out, "replace"), expected)
    changes = [_("{path} has another {instruction}", path=request.out, instruction=name) for name in names]
    names_this_gguf = not {"FROM", "ADAPTER"} & set(names)
    if names_this_gguf and not gguf.is_file():
        changes.append(_("{name} is gone", name=gguf))
    elif names_this_gguf and request.gguf is None and not is_made_of(gguf, _digest(request, source)):
        folder = source.folder
        changes.append(_("{path} is of other weights than those of {folder}", path=gguf, folder=folder))
    if changes:
        return State("stale", tuple(changes))
    return CURRENT


def plan_ollama(request: OllamaRequest) -> OllamaPlan:
    """Open everything that a request names, check it, and plan."""
    source = _open(request)
    check = functools.partial(check_file, request.out, source, MODELFILE, force=request.force)
    target = check(changes=lambda: state(request).changes)
    _check_options(request, source)
    is_fetched = source.base is None  # then the base is the one that the adapter itself names
    source = _with_base(request, source)
    content = modelfile_of(source, request.system, request.parameters)
    notes = [*content.notes]
    gguf = request.gguf or _weights_file(request, source)
    weights: GgufExport | FusedGguf | None = None
    is_resumed = not target.exists() and not request.force
    if request.gguf is None and is_resumed and is_made_of(gguf, _digest(request, source)):
        notes.append(_("kept {gguf}: an interrupted run wrote it from the same weights", gguf=gguf))
    elif request.gguf is None:
        weights = _plan_weights(request, source, gguf, same_base=request.same_base or is_fetched)
        notes += weights.notes
    return OllamaPlan(request, target, content, gguf, weights, notes)


def _open(request: OllamaRequest) -> ExportSource:
    is_fused = request.base_in_ollama is None
    return open_export(request.reference, request.base, any_kind=is_fused, publishes_base=True)


def _with_base(request: OllamaRequest, source: ExportSource) -> ExportSource:
    """The source with the base that its adapter names, from the hub or its cache, if none is here."""
    if source.adapter and source.base is None and request.gguf is None:
        return replace(source, base=fetched_base(source.adapter))
    return source


def _check_options(request: OllamaRequest, source: ExportSource) -> None:
    """`RequestError` for options that have no effect together, or for a --gguf of something else."""
    gguf = request.gguf
    if request.base_in_ollama and source.adapter is None:
        raise RequestError(
            _("--from: {folder} is a whole model and needs no base: leave it out", folder=source.folder)
        )
    if gguf is None:
        return
    if request.type:
        raise RequestError(_("--type: the file of --gguf has its type: leave one of the two out"))
    check_gguf(gguf, source)
    if source.adapter and not request.base_in_ollama:
        raise RequestError(
            _(
                "--gguf: that of an adapter needs its base in Ollama, too: --from NAME, or a .gguf "
                "file. Without --gguf the adapter is fused into its base, and the GGUF is made"
            )
        )


def _head(request: OllamaRequest, gguf: Path) -> list[str]:
    """The first lines of the Modelfile."""
    weights = os.path.relpath(gguf.resolve(), request.out.resolve().parent)
    if not weights.startswith(".."):  # Ollama takes a relative path from the Modelfile's folder
        weights = f"./{weights}"
    if request.base_in_ollama:
        return [f"FROM {request.base_in_ollama}", f"ADAPTER {weights}"]
    return [f"FROM {weights}"]


def _weights_file(request: OllamaRequest, source: ExportSource) -> Path:
    """The GGUF next to the Modelfile: of a model, of an adapter in its base, or a LoRA for --from."""
    name = name_of(source.folder)
    if request.base_in_ollama:
        return request.out.with_name(f"{name}-lora.gguf")
    kind = gguf_type(request.type, request.out)
    return request.out.with_name(f"{name}-{kind}.gguf")


def _digest(request: OllamaRequest, source: ExportSource) -> str:
    """The hash of its source in the GGUF."""
    if request.base_in_ollama:
        return source.digest
    return _with_base(request, source).whole_digest


def _plan_weights(
    request: OllamaRequest, source: ExportSource, gguf: Path, *, same_base: bool
) -> GgufExport | FusedGguf:
    """Plan the GGUF. Of an adapter in its base the base alone is planned first.

    So a model that has no GGUF is refused before it is fused.
    """
    if request.base_in_ollama or source.adapter is None:
        return plan_gguf_export(
            GgufRequest(str(request.reference), gguf, source.base, request.type, force=request.force)
        )
    base = source.base
    if base is None:
        raise TypeError(_("{folder}: an adapter without the folder of its base", folder=source.folder))
    check = functools.partial(check_file, gguf, source, GGUF, force=request.force)
    check()
    need("gguf")
    kind = gguf_type(request.type, gguf)
    base_as = trained_on_nf4(source.adapter.folder) or None
    notes = []
    if base_as:
        notes.append(
            _("fused into the base as {form} gives it back, on which the adapter was trained", form=base_as)
        )
    return FusedGguf(
        source,
        base,
        base_as,
        same_base,
        gguf,
        kind,
        plan_gguf(open_base(base), kind).bytes,
        check,
        notes,
    )
