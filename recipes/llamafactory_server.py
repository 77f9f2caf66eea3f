"""python -m recipes.llamafactory_server DESCRIPTOR [several]: answers all questions of a command.

It imports LLaMA-Factory once. It reads one JSON object a line from a Unix socket and writes one back. Each
question is answered in a forked process, so that the devices and seeds of one recipe never reach the next.
The last request may be a training. The process, which has answered nothing itself, then becomes the trainer
without a second import.
"""

import gc
import importlib
import json
import multiprocessing
import os
import socket
import sys
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tuneyard.core.training.llamafactory import Launch
from tuneyard.recipes.inspection import inspect, measure, preview

Request = dict[str, Any]


def serve(channel: socket.socket, several: bool) -> None:
    """Answer until the other side closes the channel, or asks for a training.

    Before `several` questions it imports what PEFT imports with the first adapter (2 s), once for all forks.
    """
    import llamafactory.data
    import llamafactory.hparams
    import llamafactory.model  # noqa: F401

    if several and find_spec("bitsandbytes"):
        importlib.import_module("bitsandbytes")
    gc.freeze()  # forks need no copy of what the collector would touch
    _send(channel, {"ready": True})
    while True:
        request, descriptors = _receive(channel)
        if request is None:
            return
        if "train" in request:
            channel.close()
            _train(request, *descriptors)
            return
        _send(channel, _answer_in_fork(request))


def _receive(channel: socket.socket) -> tuple[Request | None, list[int]]:
    """Next request and the file descriptors sent with it. None at the end of the channel."""
    line = bytearray()
    descriptors: list[int] = []
    while not line.endswith(b"\n"):
        piece, received, _, _ = socket.recv_fds(channel, 1 << 16, 2)
        if not piece:
            return None, []
        line += piece
        descriptors += received
    request: Request = json.loads(line)
    return request, descriptors


def _send(channel: socket.socket, answer: dict[str, Any]) -> None:
    channel.sendall(json.dumps(answer).encode() + b"\n")


def _answer_in_fork(request: Request) -> dict[str, Any]:
    context = multiprocessing.get_context("fork")
    reading, writing = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(request, writing))
    process.start()
    writing.close()
    try:
        answer: dict[str, Any] = json.loads(reading.recv_bytes())
    except EOFError:  # the system ended it, for example for want of memory
        process.join()
        return {"crashed": f"its process ended with code {process.exitcode}"}
    process.join()
    return answer


def _answer(request: Request, connection: Connection) -> None:
    """Answer one question, offline and without a GPU; runs in the forked process."""
    import datasets
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True
    datasets.config.HF_HUB_OFFLINE = datasets.config.HF_DATASETS_OFFLINE = True
    datasets.disable_progress_bars()
    os.environ.update(CUDA_VISIBLE_DEVICES="", LLAMAFACTORY_VERBOSITY="ERROR")
    settings = request["settings"]
    with ExitStack() as stack:
        stack.push(partial(_report_crash, connection))
        if "weights" in request:
            answer: dict[str, Any] = {"rows": preview(settings, Path(request["weights"]), request["count"])}
        elif "measure" in request:
            answer = measure(settings, Launch(**request["launch"]), **request["measure"])
        else:
            answer = inspect(settings, Launch(**request["launch"]))
    connection.send_bytes(json.dumps(answer).encode())


def _report_crash(
    connection: Connection, kind: type[BaseException] | None, error: BaseException | None, _: object
) -> None:
    """Tell the asking process why a question ended without an answer; the exception goes on."""
    if kind is not None:
        connection.send_bytes(json.dumps({"crashed": f"{kind.__name__}: {error}"}).encode())


def _train(request: Request, log: int, lock: int) -> None:
    """Train a recipe with LLaMA-Factory, everything printed to `log`; `lock` stays open until the end."""
    for stream in (1, 2):
        os.dup2(log, stream)
    os.close(log)
    os.set_inheritable(lock, True)
    recipe = request["train"]
    if request["weights"]:
        from tuneyard.recipes.token_weights import train_weighted

        train_weighted(Path(request["weights"]), recipe)
        return
    from llamafactory.cli import main

    sys.argv = ["llamafactory-cli", "train", recipe]
    main()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), several="several" in sys.argv[2:])
