"""Write what Ollama loads: a GGUF, and the Modelfile that names it.

An adapter is fused into its base first. With --from it becomes a GGUF LoRA for a base that Ollama has.
"""

import functools
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuneyard.adapters.export.gguf_files import gguf_type, plan_gguf, plan_model, to_gguf, write_export
from tuneyard.adapters.export.modelfile import modelfile_of
from tuneyard.adapters.export.source import GGUF, MODELFILE, ExportSource, check_file, check_gguf, is_made_of
from tuneyard.adapters.fuse.fuse import FuseRequest, plan_fusing, trained_on_nf4
from tuneyard.adapters.model.adapter import Adapter, name_of
from tuneyard.adapters.model.store import fetched_base, note
from tuneyard.adapters.write.output import require_space
from tuneyard.core.errors import RequestError, need
from tuneyard.core.files import staging, write_text
from tuneyard.core.language.message import _
from tuneyard.core.weights.base_models import open_base


def to_ollama(source: ExportSource, options: Mapping[str, Any]) -> None:
    """Write a GGUF next to a Modelfile, or name the one of --gguf in it."""
    out: Path = options["out"]
    target = check_file(out, source, MODELFILE, force=options["force"])
    _check_options(source, options)
    if source.adapter and source.base is None and options["gguf"] is None:
        source = replace(source, base=fetched_base(source.adapter))
        options = {**options, "same_base": True}  # it is the one that the adapter itself names
    text = modelfile_of(source, options)
    gguf = options["gguf"] or _write_weights(source, options, is_resumed=not target.exists())
    weights = os.path.relpath(gguf.resolve(), target.parent)
    if not weights.startswith(".."):  # Ollama takes a relative path from the Modelfile's folder
        weights = f"./{weights}"
    head = [f"FROM {weights}"]
    if options["from_"]:
        head = [f"FROM {options['from_']}", f"ADAPTER {weights}"]
    write_text(target, text(head))


def _check_options(source: ExportSource, options: Mapping[str, Any]) -> None:
    """`RequestError` for options that have no effect together, or for a --gguf of something else."""
    gguf, base_in_ollama = options["gguf"], options["from_"]
    if base_in_ollama and source.adapter is None:
        raise RequestError(
            _("--from: {folder} is a whole model and needs no base: leave it out", folder=source.folder)
        )
    if gguf is None:
        return
    if options["type"]:
        raise RequestError(_("--type: the file of --gguf has its type: leave one of the two out"))
    check_gguf(gguf, source)
    if source.adapter and not base_in_ollama:
        raise RequestError(
            _(
                "--gguf: that of an adapter needs its base in Ollama, too: --from NAME, or a .gguf "
                "file. Without --gguf the adapter is fused into its base, and the GGUF is made"
            )
        )


def _write_weights(source: ExportSource, options: Mapping[str, Any], *, is_resumed: bool) -> Path:
    """Write the GGUF next to the Modelfile: of a model, of an adapter in its base, or a LoRA for --from.

    A killed run left a whole GGUF and no Modelfile: if it `is_resumed`, a GGUF of the same source is kept.
    """
    out: Path = options["out"]
    name = name_of(source.folder)
    if options["from_"]:
        gguf, digest = out.with_name(f"{name}-lora.gguf"), source.digest
    else:
        gguf = out.with_name(f"{name}-{gguf_type(options['type'], out)}.gguf")
        digest = source.whole_digest
    if is_resumed and not options["force"] and is_made_of(gguf, digest):
        note(_("kept {gguf}: an interrupted run wrote it from the same weights", gguf=gguf))
        return gguf
    if options["from_"]:
        to_gguf(source, {**options, "out": gguf})
    elif source.adapter:
        _fuse_into_gguf(source, source.adapter, gguf, options)
    else:
        to_gguf(source, {**options, "out": gguf})
    return gguf


def _fuse_into_gguf(source: ExportSource, adapter: Adapter, gguf: Path, options: Mapping[str, Any]) -> None:
    """Fuse in fp32 next to the GGUF, write it from there, and remove the fused model.

    The base alone is planned first, so that a model which has no GGUF is refused before it is fused.
    """
    from tqdm import tqdm

    base = source.base
    if base is None:
        raise TypeError(_("{folder}: an adapter without the folder of its base", folder=source.folder))
    check = functools.partial(check_file, gguf, source, GGUF, force=options["force"])
    target = check()
    need("gguf")
    kind = gguf_type(options["type"], gguf)
    size = plan_gguf(open_base(base), kind).bytes
    base_as = trained_on_nf4(adapter.folder) or None
    with staging(target.with_name(f"{target.name}.fused")) as staged:
        request = FuseRequest(
            [(str(source.folder.resolve()), 1.0)],
            base,
            staged / "fused" / name_of(source.folder),  # `staged` itself is locked
            dtype="F32",
            base_as=base_as,
            same_base=options["same_base"],
        )
        plan = plan_fusing(request)
        require_space(target, plan.bytes + size)
        for text in plan.notes:
            note(text)
        if base_as:
            note(
                _(
                    "fused into the base as {form} gives it back, on which the adapter was trained",
                    form=base_as,
                )
            )
        with tqdm(total=plan.bytes, unit="B", unit_scale=True, delay=2) as bar:
            plan.write(bar.update)
        write_export(plan_model(source, request.out, kind), gguf, check)
