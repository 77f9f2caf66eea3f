"""Client of a LLaMA-Factory subprocess that answers questions about recipes and may then train one."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click

from tuneyard.core.errors import ContentError, TuneyardError, need
from tuneyard.core.execution.processes import end_processes
from tuneyard.core.files import files_of, sha256
from tuneyard.core.records import PLACEHOLDERS
from tuneyard.recipes.cache import folder_hashes, remembered
from tuneyard.recipes.data import dataset_dir, locate
from tuneyard.recipes.hardware import Gpu, is_set, uses_torchrun
from tuneyard.recipes.launch import LOG, environment, follow, logged_until, supervised
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.schema import known_keys

Answer = dict[str, Any]  # LLaMA-Factory's, as recipes/inspection.py gives it
PROGRESS = b"counting tokens"  # of recipes/rows.py, passed on to the user


class LlamaFactory:
    """A process of recipes/llamafactory_server.py: the first question starts it, the `with` block ends it.

    It imports LLaMA-Factory once, however many recipes are asked about. `train` makes it the trainer.
    """

    def __init__(self, several: bool = False) -> None:
        self._words = ["several"] if several else []  # of its command line
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._errors = bytearray()
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(patience=5 if kind is None else 0)

    def close(self, patience: float = 5) -> None:
        """End the process; after `patience` seconds, which an idle one does not need, by a signal."""
        channel, process, reader = self._channel, self._process, self._reader
        self._channel = self._process = self._reader = None
        if channel is not None:
            channel.close()  # an idle process ends by itself at the end of its channel
        if process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        end_processes([process])
        if reader is not None:
            reader.join()
        if process.stderr is not None:
            process.stderr.close()

    def inspect(self, settings: dict[str, object], launch: dict[str, object]) -> Answer:
        """Run recipes/inspection.py on settings. `ContentError` if it crashes."""
        return self._ask({"settings": settings, "launch": launch})

    def preview(self, settings: dict[str, object], weights: Path, count: int) -> Answer:
        """First rows of a recipe's data as (text, weight) pairs. `ContentError` if they cannot be loaded."""
        return self._ask({"settings": settings, "weights": str(weights), "count": count})

    def measure(
        self, settings: dict[str, object], launch: dict[str, object], rows: dict[str, bool]
    ) -> Answer:
        """Template, lengths and shapes for a recipe that is being written; `rows` describes its data."""
        return self._ask({"settings": settings, "launch": launch, "measure": rows})

    def train(self, recipe: Path, weights: Path | None, output_dir: Path, lock: int) -> None:
        """Train a recipe file to its end; `ContentError` with the last lines of the log if it fails.

        The trainer holds the descriptor `lock` open.
        """
        channel, process = self._start()
        before = logged_until(output_dir)
        request = {"train": str(recipe), "weights": str(weights) if weights else None}
        with (output_dir / LOG).open("ab") as log:
            message = json.dumps(request).encode() + b"\n"
            socket.send_fds(channel, [message], [log.fileno(), lock])
        follow(process, output_dir, before)

    def _ask(self, question: dict[str, Any]) -> Answer:
        channel, _ = self._start()
        text = json.dumps(question, default=str)  # `default`: bytes of !!binary
        try:
            channel.sendall(text.encode() + b"\n")
        except (BrokenPipeError, ConnectionResetError) as error:
            raise self._failed() from error
        return self._read(channel)

    def _read(self, channel: socket.socket) -> Answer:
        line = bytearray()
        while not line.endswith(b"\n"):
            try:
                piece = channel.recv(1 << 16)
            except ConnectionResetError as error:
                raise self._failed() from error
            if not piece:
                raise self._failed()
            line += piece
        answer: Answer = json.loads(line)
        if "crashed" in answer:
            raise ContentError(f"LLaMA-Factory could not be asked: {answer['crashed']}")
        return answer

    def _start(self) -> tuple[socket.socket, "subprocess.Popen[bytes]"]:
        """Start the process unless it runs, and wait until it has imported LLaMA-Factory."""
        if self._channel is not None and self._process is not None:
            return self._channel, self._process
        need("llamafactory")
        click.echo("starting LLaMA-Factory …", err=True)
        client_end, server_end = socket.socketpair()
        with server_end:
            server = [sys.executable, "-P", "-m", "tuneyard.recipes.llamafactory_server"]
            process = supervised(
                [*server, str(server_end.fileno()), *self._words],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environment(),
                pass_fds=(server_end.fileno(),),
            )
        self._channel, self._process = client_end, process
        self._reader = threading.Thread(target=self._copy_errors, args=(process,), daemon=True)
        self._reader.start()
        self._read(client_end)
        return client_end, process

    def _copy_errors(self, process: "subprocess.Popen[bytes]") -> None:
        """Collect the stderr of the process, and show its progress."""
        if process.stderr is None:
            return
        while True:
            piece = os.read(process.stderr.fileno(), 4096)
            if not piece:
                return
            self._errors += piece
            if PROGRESS in piece:
                sys.stderr.write(piece.decode(errors="replace"))
                sys.stderr.flush()

    def _failed(self) -> ContentError:
        """End a process that has closed its channel and return why; the next question starts another one."""
        self.close()
        text = self._errors.decode(errors="replace").replace("\r", "\n")
        lines = [line for line in text.splitlines() if line.strip()]
        self._errors.clear()
        return ContentError(f"LLaMA-Factory could not be asked: {lines[-1] if lines else 'no reason given'}")


def ask(llamafactory: LlamaFactory, recipe: Recipe, model: str, gpus: Sequence[Gpu]) -> Answer:
    """Ask LLaMA-Factory about a recipe for a machine with `gpus`. `ContentError` if it crashes.

    An answer about the same settings, data and model comes from the cache.
    """
    settings = {key: value for key, value in recipe.settings.items() if key in known_keys()}
    settings["model_name_or_path"] = model
    launch = _launch(recipe, gpus)

    def answer() -> Answer:
        return llamafactory.inspect(settings, launch)

    data = _data(recipe)
    if data is None:
        return answer()
    return remembered("recipe", [settings, launch, data, folder_hashes(Path(model))], answer)


def ask_measures(
    llamafactory: LlamaFactory, recipe: Recipe, gpus: Sequence[Gpu], rows: dict[str, bool]
) -> Answer:
    """Measure data and model for a new recipe; `rows` describes them (inspection.measure)."""
    return llamafactory.measure(recipe.settings, _launch(recipe, gpus), rows)


def _launch(recipe: Recipe, gpus: Sequence[Gpu]) -> dict[str, object]:
    return {
        "distributed": uses_torchrun(recipe, gpus) or is_set("USE_RAY"),
        "zero_stage": recipe.zero_stage(),
    }


def ask_weights(
    llamafactory: LlamaFactory, recipe: Recipe, model: str, weights: Path, count: int
) -> list[list[tuple[str, float]]]:
    """First rows of a recipe's data as (text, weight) pairs. `ContentError` if they cannot be loaded."""
    settings = {**recipe.settings, "model_name_or_path": model}
    rows: list[list[tuple[str, float]]] = llamafactory.preview(settings, weights, count)["rows"]
    return rows


def _data(recipe: Recipe) -> dict[str, object] | None:
    """Entry and file hashes of each dataset. None if an answer also depends on media files."""
    data: dict[str, object] = {}
    for name in [*recipe.names("dataset"), *recipe.names("eval_dataset")]:
        try:
            entry, path = locate(name, dataset_dir(recipe))
            hashes = path if isinstance(path, str) else [sha256(file) for file in files_of(path)]
        except TuneyardError:
            data[name] = None
            continue
        columns = entry.get("columns")
        if isinstance(columns, dict) and PLACEHOLDERS.keys() & columns.keys():
            return None
        data[name] = [entry, hashes]
    return data
