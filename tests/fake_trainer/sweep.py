"""python -m tests.fake_trainer.sweep …: `tuneyard recipe sweep` with the trainer of this folder.

The trainer cannot check recipes, so that the check is left out. So is the plot, which takes longest.
FAKE_GPUS is the machine's number of GPUs.
"""

import os

from tuneyard.core.cli.run import run_command
from tuneyard.recipes.machine import hardware
from tuneyard.recipes.sweep import __main__ as command
from tuneyard.recipes.sweep import results, sweep
from tuneyard.recipes.training import train

if __name__ == "__main__":
    gpus = [hardware.Gpu("A100-80", 8)] * int(os.environ.get("FAKE_GPUS", "0"))
    hardware.find_gpus = lambda: gpus
    sweep.check_first = lambda *_words, **_options: None
    train.ask_first = lambda *_words, **_options: []
    results.plot = lambda *_values: None
    run_command(command.command)
