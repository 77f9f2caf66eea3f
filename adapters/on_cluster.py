"""`tuneyard adapter fuse|export … --ray ADDRESS`: one task, on a node that has the memory for it."""

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tuneyard.adapters.card import CARD
from tuneyard.adapters.export.gguf_files import GgufExport, ModelExport, plan_export, write_export
from tuneyard.adapters.export.source import ORIGIN, ExportSource, open_source
from tuneyard.adapters.fuse import FusePlan, plan_fusing
from tuneyard.adapters.request import FuseRequest
from tuneyard.core.execution import Resources, WorkItem
from tuneyard.core.execution.ray_cluster import RayCluster
from tuneyard.core.files import files_of


def fuse_on_cluster(plan: FusePlan, address: str) -> list[str]:
    """Write a plan on a node of a cluster; the lines on the retained fraction of ΔW.

    `RequestError` if the cluster does not answer, a node does not see the files, or none has the memory.
    """
    request = plan.request
    inputs = files_of(request.base)
    for weighted in plan.weighted:
        inputs += files_of(weighted.adapter.folder)
    item = WorkItem(f"fuse {request.out}", _fuse, (request,))
    lines: list[str] = _run(item, plan.memory, address, inputs, request.out)
    return lines


def export_on_cluster(export: GgufExport, source: ExportSource, options: Mapping[str, Any]) -> None:
    """Write a GGUF file on a node of a cluster; `RequestError` as of `fuse_on_cluster`."""
    inputs = files_of(source.folder)
    if source.base:
        inputs += [path for path in files_of(source.base) if path.name in ("config.json", CARD, ORIGIN)]
    if isinstance(export, ModelExport) and export.quantiser:
        inputs.append(export.quantiser)
    arguments = (source.folder, source.base, dict(options))
    item = WorkItem(f"export {options['out']}", _export, arguments)
    _run(item, export.memory, options["ray"], inputs, options["out"].parent)


def _run(item: WorkItem, memory: int, address: str, inputs: Sequence[Path], folder: Path) -> Any:
    """The record of an item that a node runs. Its notes are printed here."""
    with RayCluster(address) as cluster:
        cluster.check_paths(inputs, [folder])
        (result,) = cluster.map([item], resources=Resources(memory=memory))
    click.echo(result.output, err=True, nl=False)
    return result.record_or_raise()


def _fuse(request: FuseRequest) -> list[str]:
    """Plan and write a fusion on a node."""
    with _no_notes():
        plan = plan_fusing(request)
    return plan.write(lambda _: None)


def _export(folder: Path, base: Path | None, options: Mapping[str, Any]) -> None:
    """Plan and write a GGUF file on a node."""
    with _no_notes():
        source = open_source(folder, base)
        export = plan_export(source, options)
    write_export(export, source, options)


@contextlib.contextmanager
def _no_notes() -> Iterator[None]:
    """Leave out the notes of planning: the driver has planned the same and has printed them."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
