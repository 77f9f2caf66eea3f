"""python -m testing.llamafactory_cli train RECIPE.yaml …: `llamafactory-cli` in a fork with its imports.

It runs in a fork of `testing.forks`, whose forkserver has imported LLaMA-Factory once for all commands.
"""

import os
import sys
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from tuneyard.recipes.llamafactory.client import CONTEXT


def run(words: list[str], folder: str, environment: dict[str, str], streams: list[Any]) -> None:
    """Run LLaMA-Factory's own command with the folder, environment and streams of the caller."""
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream.detach(), number)
    os.chdir(folder)
    os.environ.update(environment)
    sys.argv = ["llamafactory-cli", *words]
    from llamafactory.cli import main as llamafactory_main

    llamafactory_main()


def main() -> None:
    streams = [reduction.DupFd(1), reduction.DupFd(2)]
    process = CONTEXT.Process(target=run, args=(sys.argv[1:], str(Path.cwd()), dict(os.environ), streams))
    process.start()
    process.join()
    sys.exit(process.exitcode)


if __name__ == "__main__":
    main()
