"""A library of `tests.forks`: recipe commands fork the process that has imported LLaMA-Factory.

`recipe check`, `plan` and `train` start a forkserver that imports it for 10 CPU seconds. Here their processes
are forks of the process that runs the command, with the imports in it. All else of the commands is unchanged.
"""

import importlib
import multiprocessing

from tuneyard.recipes import llamafactory_client

IMPORTED = (
    "llamafactory.train.tuner",
    "llamafactory.data",
    "llamafactory.hparams",
    "llamafactory.model",
    "llamafactory.cli",
    "peft",
    "bitsandbytes",
    "trl",
    "tuneyard.__main__",
)
for library in IMPORTED:
    importlib.import_module(library)
llamafactory_client.CONTEXT = multiprocessing.get_context("fork")


def keep_the_fork(preload: list[str]) -> None:
    """Start no server: this process has imported everything already."""


llamafactory_client.start_forkserver = keep_the_fork
