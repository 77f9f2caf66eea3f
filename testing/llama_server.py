"""A real llama.cpp server, from the package xllamacpp: python -m testing.llama_server GGUF [SETTINGS]

SETTINGS is a JSON object: fields of CommonParams by name (`sampling.temp` for one inside another), and
`lora`, a list of [GGUF, scale]. It prints its address and serves until it is killed.
"""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from testing import ROOT

CONTEXT = 1024  # tokens of a slot


def main(gguf: str, settings: Mapping[str, Any]) -> None:
    """Serve the file on a free port."""
    from xllamacpp import CommonAdapterLoraInfo, CommonParams, Server

    params = CommonParams()
    params.model.path = gguf
    params.port = 0
    params.cpuparams.n_threads = 1  # threads that spin take the time of a test's other processes
    for path, value in settings.items():
        if path == "lora":
            params.lora_adapters = [CommonAdapterLoraInfo(*adapter) for adapter in value]
        else:
            set_field(params, path, value)
    server = Server(params)
    print(server.listening_address, flush=True)
    while True:
        time.sleep(60)


def set_field(params: Any, path: str, value: object) -> None:
    """Set a field of CommonParams, or one inside another: `sampling.temp`."""
    *parents, field = path.split(".")
    for parent in parents:
        params = getattr(params, parent)
    getattr(params, field)  # a name that is none is an error
    setattr(params, field, value)


def program(words: Sequence[str]) -> None:
    """Serve as `llama-server` does with these words, until Ctrl-C. An unknown word is an error."""
    from xllamacpp import CommonAdapterLoraInfo, CommonParams, Server, common_reasoning_format

    switches = {"--no-kv-unified": ("kv_unified", False), "--jinja": ("use_jinja", True)}
    fields: dict[str, tuple[str, type]] = {
        "--ctx-size": ("n_ctx", int), "--parallel": ("n_parallel", int), "--port": ("port", int),
        "--temp": ("sampling.temp", float), "--top-k": ("sampling.top_k", int),
        "--top-p": ("sampling.top_p", float), "--min-p": ("sampling.min_p", float),
        "--repeat-penalty": ("sampling.penalty_repeat", float), "--model": ("model.path", str),
    }  # fmt: skip
    params, loras = CommonParams(), []
    params.cpuparams.n_threads = 1
    rest = iter(words)
    for flag in rest:
        if flag in switches:
            setattr(params, *switches[flag])
            continue
        value = next(rest)
        if flag in fields:
            path, kind = fields[flag]
            set_field(params, path, kind(value))
        elif flag in ("--lora", "--lora-scaled"):
            file, _, scale = value.partition(":")
            loras.append(CommonAdapterLoraInfo(file, float(scale or 1)))
        elif flag == "--chat-template-file":
            params.chat_template = Path(value).read_text(encoding="utf-8")
        elif flag == "--alias":
            params.model_alias = {value}
        elif flag == "--host":
            params.hostnames = [value]
        elif (flag, value) == ("--reasoning-format", "none"):
            params.reasoning_format = common_reasoning_format.COMMON_REASONING_FORMAT_NONE
        else:
            raise SystemExit(f"{flag} {value}: unknown here")
    params.lora_adapters = loras
    with suppress(KeyboardInterrupt):
        server = Server(params)
        signal.pause()
        del server


def write_program(folder: Path) -> Path:
    """Write a `llama-server` into a folder for PATH."""
    folder.mkdir(exist_ok=True)
    file = folder / "llama-server"
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); from testing.llama_server import program"
    file.write_text(f"#!{sys.executable}\n{code}; program(sys.argv[1:])\n")
    file.chmod(0o755)
    return folder


@contextmanager
def llama_server(
    gguf: Path, slots: int = 2, *, context: int = CONTEXT, settings: Mapping[str, Any] | None = None
) -> Iterator[str]:
    """Address of a server in a subprocess, which is killed at the end of the block.

    `context` is in tokens of a slot. `settings` are those of the module's docstring.
    """
    every = {"n_parallel": slots, "n_ctx": context * slots, **(settings or {})}
    command = [sys.executable, "-m", "testing.llama_server", str(gguf), json.dumps(every)]
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
