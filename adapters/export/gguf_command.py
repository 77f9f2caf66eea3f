"""`tuneyard adapter export --to gguf`: the file is written here, or on a node of a cluster."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from tuneyard.adapters.export.gguf_files import plan_export, write_export
from tuneyard.adapters.export.source import ExportSource


def to_gguf(source: ExportSource, options: Mapping[str, Any]) -> None:
    """Write a model, or an adapter for its base, as a GGUF file."""
    started = time.monotonic()
    export = plan_export(source, options)
    out: Path = options["out"]
    if options["ray"] is None:
        write_export(export, source, options)
    else:
        from tuneyard.adapters.on_cluster import export_on_cluster

        export_on_cluster(export, source, options)
    size = out.resolve().stat().st_size
    click.echo(f"{out}  {size / 1e6:,.1f} MB  {time.monotonic() - started:.1f} s")
