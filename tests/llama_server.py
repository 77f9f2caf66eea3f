"""A real llama.cpp server for tests, from the package xllamacpp: python -m tests.llama_server GGUF [SETTINGS]

SETTINGS is a JSON object: fields of CommonParams by name (`sampling.temp` for one inside another), and
`lora`, a list of [GGUF, scale]. It prints its address and serves until it is killed.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import ROOT

CONTEXT = 1024  # tokens of a slot


def main(gguf: str, settings: Mapping[str, Any]) -> None:
    """Serve the file on a free port."""
    from xllamacpp import CommonAdapterLoraInfo, CommonParams, Server

    params = CommonParams()
    params.model.path = gguf
    params.port = 0
    params.cpuparams.n_threads = 1  # threads that spin take the time of a test's other processes
    for path, value in settings.items():
        *parents, field = path.split(".")
        if field == "lora":
            params.lora_adapters = [CommonAdapterLoraInfo(*adapter) for adapter in value]
            continue
        target = params
        for parent in parents:
            target = getattr(target, parent)
        getattr(target, field)  # a name that is none is an error
        setattr(target, field, value)
    server = Server(params)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(60)


@contextmanager
def llama_server(
    gguf: Path, slots: int = 2, *, context: int = CONTEXT, settings: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Address of a server in a subprocess, which is killed at the end of the block.

    `context` is in tokens of a slot. `settings` are those of the module's docstring.
    """
    every = {"n_parallel": slots, "n_ctx": context * slots, **(settings or {})}
    command = [sys.executable, "-m", "tests.llama_server", str(gguf), json.dumps(every)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            assert address, f"no server of {gguf} with {every}"
            yield f"{address}/v1"
        finally:
            server.kill()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {})
