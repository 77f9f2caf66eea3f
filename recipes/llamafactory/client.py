"""Client of LLaMA-Factory, which answers questions about recipes and trains them, in forks of one process."""

from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import forkserver, get_context, reduction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tuneyard.core.errors import ContentError, TuneyardError, need
from tuneyard.core.execution.processes import GRACE
from tuneyard.core.files import files_of, sha256
from tuneyard.core.installation.checkout import environment_set
from tuneyard.core.language.message import _
from tuneyard.core.language.messages import say
from tuneyard.core.llamafactory.loader import Launch
from tuneyard.core.records import PLACEHOLDERS
from tuneyard.recipes.llamafactory import server as llamafactory_server
from tuneyard.recipes.llamafactory.answer import Facts
from tuneyard.recipes.llamafactory.cache import folder_hashes, remembered
from tuneyard.recipes.llamafactory.launch import TrainingLog, environment
from tuneyard.recipes.machine.hardware import Gpu, is_set, uses_torchrun
from tuneyard.recipes.recipe import Recipe
from tuneyard.recipes.recipe.data import dataset_dir, locate
from tuneyard.recipes.recipe.schema import known_keys

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from tuneyard.core.llamafactory.template_choice import TemplateChoice

PRELOADED = ["tuneyard.recipes.llamafactory.preload"]
CONTEXT: Any = get_context("forkserver")

code_option = click.option(
    "--trust-remote-code",
    "runs_model_code",
    is_flag=True,
    help="Let LLaMA-Factory run the Python files of the model.",
)
"""A recipe's own `trust_remote_code` is for its training: looking at a mailed recipe runs no code."""


class LlamaFactory:
    """The forkserver of the standard library, which imports LLaMA-Factory's libraries first.

    Each question and each training is a fork of it. `runs_model_code`: its answers may run the Python files
    of a model folder (--trust-remote-code).
    """

    def __init__(self, *, runs_model_code: bool = False) -> None:
        self.runs_model_code = runs_model_code
        self._is_started = False

    def ask(self, question: str, *arguments: Any) -> Any:
        """Result of a function in recipes/llamafactory/inspection.py. `ContentError` if it crashes."""
        reading, writing = CONTEXT.Pipe(duplex=False)
        errors = reduction.DupFd(2)
        with reading:
            process = self._start(llamafactory_server.answer, writing, errors, question, *arguments)
            writing.close()
            try:
                answer = reading.recv()
                process.join(5)
            except EOFError:  # the system ended it, for example for want of memory
                process.join()
                answer = _("its process ended with code {code}", code=process.exitcode)
            finally:
                _end(process)
        if isinstance(answer, str):
            raise ContentError(_("LLaMA-Factory could not be asked: {reason}", reason=answer))
        return answer

    def train(
        self, recipe: Path, weights: Path | None, output_dir: Path, lock: int, **variables: str
    ) -> None:
        """Train a recipe file to its end; `ContentError` with the last lines of the log if it fails.

        The trainer holds the descriptor `lock` open, and gets further environment variables.
        """
        training_log = TrainingLog(output_dir, tuple(variables.values()))
        shared_lock = reduction.DupFd(lock)
        process = self._start(
            llamafactory_server.train, str(recipe), weights, training_log.log, shared_lock, variables
        )
        training_log.follow(lambda: process.exitcode, partial(_end, process))

    def _start(self, work: Callable[..., None], *arguments: Any) -> "BaseProcess":
        """Start a process with some work; the first one waits for the imports of the forkserver."""
        if not self._is_started:
            need("llamafactory")
            say(_("starting LLaMA-Factory …"), to_stderr=True)
            start_forkserver()
            self._is_started = True
        process: BaseProcess = CONTEXT.Process(
            target=llamafactory_server.run_guarded, args=(work, *arguments)
        )
        try:
            process.start()
        except (EOFError, OSError) as error:
            self._is_started = False
            raise ContentError(
                _("LLaMA-Factory could not be asked: its import failed ({error})", error=error)
            ) from error
        return process


def start_forkserver() -> None:
    """Start the forkserver unless it runs, with the paths of our modules and without the current folder's."""
    CONTEXT.set_forkserver_preload(PRELOADED)
    with environment_set(environment()):
        forkserver.ensure_running()


def _end(process: "BaseProcess") -> None:
    """Wait for a process that is ending; end one that still runs by SIGTERM, and SIGKILL after a while."""
    process.join(0.1)
    process.terminate()
    process.join(GRACE + 10)  # it gives its family GRACE
    process.kill()
    process.join()


def ask(llamafactory: LlamaFactory, recipe: Recipe, model: str, gpus: Sequence[Gpu]) -> Facts:
    """Ask LLaMA-Factory about a recipe for a machine with `gpus`. `ContentError` if it crashes.

    An answer about the same settings, data and model comes from the cache. The learning rate, the setting
    that is edited most, is not asked about: LLaMA-Factory only hands it to the optimizer.
    """
    keys = known_keys().keys() - {"learning_rate"}
    settings = {key: value for key, value in recipe.settings.items() if key in keys}
    settings["model_name_or_path"] = model
    launch = _launch(llamafactory, recipe, gpus)
    answer: Callable[[], Facts] = partial(llamafactory.ask, "inspect", settings, launch)
    data = _data(recipe)
    if data is None:
        return answer()
    return remembered("recipe", [settings, launch, data, folder_hashes(Path(model))], Facts, answer)


def ask_measures(
    llamafactory: LlamaFactory, recipe: Recipe, gpus: Sequence[Gpu], rows: dict[str, bool]
) -> "tuple[Facts, TemplateChoice | None]":
    """Measure data and model for a new recipe; `rows` describes them (inspection.measure)."""
    answer, template = llamafactory.ask("measure", recipe.settings, _launch(llamafactory, recipe, gpus), rows)
    return answer, template


def _launch(llamafactory: LlamaFactory, recipe: Recipe, gpus: Sequence[Gpu]) -> Launch:
    is_distributed = uses_torchrun(recipe, gpus) or is_set("USE_RAY")
    return Launch(is_distributed, recipe.zero_stage(), llamafactory.runs_model_code)


def _data(recipe: Recipe) -> dict[str, object] | None:
    """Entry and file hashes of each dataset. None if an answer also depends on media files."""
    data: dict[str, object] = {}
    for name in recipe.datasets:
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
