"""`python -m tests.bench.compile_parts [FILE.jsonl]`: the CPU seconds of each part of compiling MNLI.

Without a file, rows are made up as for the bench of compile. Hashing and writing run in threads of their own.
"""

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tuneyard.compiler import chunks, pipeline
from tuneyard.compiler import compile as compile_module
from tuneyard.compiler.lint.fingerprints import Fingerprints
from tuneyard.compiler.request import CompileRequest
from tuneyard.compiler.spec.model import load_spec
from tuneyard.compiler.write import readback

PARTS = {
    "check": (chunks.Checker, "check"),
    "lint and keys": (chunks.Lint, "see"),
    "render": (chunks.Renderer, "block"),
    "write": (chunks.RecordFile, "add"),
    "read back": (chunks.RecordFile, "read_back"),
    "  fingerprints": (readback, "fingerprints"),
    "compare rows": (pipeline, "warn_of_duplicates"),
    "account": (readback.Written, "account"),
    "  clusters": (Fingerprints, "clusters"),
    "  write beside": (readback, "write_row_index"),
    "publish": (compile_module.Registry, "publish"),
}
seconds: dict[str, float] = {}


def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that adds the CPU seconds of its calls to those of a part."""

    def run(*args: Any, **options: Any) -> Any:
        start = time.thread_time()
        try:
            return call(*args, **options)
        finally:
            seconds[name] = seconds.get(name, 0) + time.thread_time() - start

    return run


def main() -> None:
    """Print one line for each part."""
    for name, (home, attribute) in PARTS.items():
        setattr(home, attribute, timed(name, getattr(home, attribute)))
    reader = chunks.read_unsettled

    def read(*args: Any) -> Iterator[Any]:
        """Yield the batches of the reader, its own time counted."""
        batches = reader(*args)
        while (batch := timed("read", next)(batches, None)) is not None:
            yield batch

    chunks.read_unsettled = read
    with tempfile.TemporaryDirectory(prefix="tuneyard-bench-") as name:
        source = Path(sys.argv[1]) if len(sys.argv) > 1 else made_up(Path(name))
        request = CompileRequest(sources=(f"train={source}",), out=Path(name) / "out", workers=1)
        timed("all of the main thread", compile_module.compile_spec)(load_spec("mnli"), request)
    for name, spent in seconds.items():
        print(f"{name:30} {spent:.2f} CPU s")


def made_up(folder: Path) -> Path:
    """Write made-up rows in a process of its own, whose memory is gone afterwards."""
    from tests.bench.compile import FILES, write_layouts

    writer = multiprocessing.get_context("spawn").Process(target=write_layouts, args=(folder,))
    writer.start()
    writer.join()
    return folder / FILES["jsonl"]


if __name__ == "__main__":
    main()
