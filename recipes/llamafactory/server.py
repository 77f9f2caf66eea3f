"""What runs in a child of the forkserver: one question to LLaMA-Factory, or one training.

Each has its own process, so that the devices and seeds of one recipe never reach the next. Its whole
family ends with it, or with the command that asked.
"""

import atexit
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

from tuneyard.core.execution.processes import end_with
from tuneyard.core.llamafactory.training import train as run_training
from tuneyard.core.text.terminal import guard
from tuneyard.recipes.llamafactory.launch import leads_family


def run_guarded(work: Callable[..., None], *arguments: Any) -> None:
    """Run `work` in a fork, and end as it ends. SIGTERM and the end of the asking process end both."""
    os.setsid()  # Ctrl-C reaches the asking process alone, which ends this one
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # where a scheduler ignores it, exit codes are lost
    asking = multiprocessing.parent_process()
    process = multiprocessing.get_context("fork").Process(target=_work, args=(os.getpid(), work, arguments))
    with leads_family():
        process.start()
        if asking is not None:
            connection.wait([process.sentinel, asking.sentinel])
        if asking is None or asking.is_alive():
            process.join()
    code = process.exitcode or 0
    if code < 0:
        os.kill(os.getpid(), -code)
    sys.exit(code)


def _work(guard: int, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    end_with(guard)
    work(*arguments)


def answer(reply: connection.Connection, errors: Any, question: str, *arguments: Any) -> None:
    """Answer a question, the name of a function in inspection.py, offline and without a GPU.

    Its progress goes to the descriptor `errors`, and nothing else is printed.
    """
    _redirect(os.open(os.devnull, os.O_RDWR))
    with ExitStack() as stack:
        stack.push(partial(_report_crash, reply))
        import datasets
        from huggingface_hub import constants

        from tuneyard.recipes.llamafactory import inspection, rows

        constants.HF_HUB_OFFLINE = True
        datasets.config.HF_HUB_OFFLINE = datasets.config.HF_DATASETS_OFFLINE = True
        datasets.disable_progress_bars()
        os.environ.update(CUDA_VISIBLE_DEVICES="", LLAMAFACTORY_VERBOSITY="ERROR")
        rows.progress = stack.enter_context(os.fdopen(errors.detach(), "w"))
        guard(rows.progress)
        reply.send(getattr(inspection, question)(*arguments))


def _report_crash(
    reply: connection.Connection,
    kind: type[BaseException] | None,
    error: BaseException | None,
    _traceback: object,
) -> None:
    """Tell the asking process why a question ended without an answer; the exception goes on."""
    if kind is not None:
        reply.send(f"{kind.__name__}: {error}")


def train(recipe: str, weights: Path | None, log: Path, lock: Any, variables: dict[str, str]) -> None:
    """Train a recipe with LLaMA-Factory, everything printed to `log`; `lock` stays open until the end.

    `variables` are those of the environment that hold the recipe's secrets.
    """
    os.environ.update(variables)
    os.set_inheritable(lock.detach(), True)
    _redirect(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666))
    try:
        if weights is not None:
            from tuneyard.recipes.llamafactory.token_weights import train_weighted

            train_weighted(weights, recipe)
        else:
            run_training(recipe)
    finally:
        atexit._run_exitfuncs()  # a fork ends without them, and wandb writes its records in one


def _redirect(descriptor: int) -> None:
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    os.close(descriptor)
