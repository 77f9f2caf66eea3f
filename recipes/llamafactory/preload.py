"""Imports of the forkserver in which LLaMA-Factory answers and trains; nothing else imports this module.

They are what LLaMA-Factory imports, which takes long, and not LLaMA-Factory itself: its import asks the GPU
for its abilities, and CUDA refuses every fork of a process that has asked. Nor TRL, for which LLaMA-Factory
changes a function of transformers first (llamafactory/extras/packages.py). Their warnings are hidden, and a
question reports a package that is missing, since it imports it again.
"""

import gc
import importlib
import os

NOTHING = os.open(os.devnull, os.O_RDWR)
for stream in (1, 2):
    os.dup2(NOTHING, stream)
for library in ("datasets", "peft"):
    importlib.import_module(library)
gc.freeze()  # forks need no copy of what the collector would touch
