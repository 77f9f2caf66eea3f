"""Imports of the forkserver in which LLaMA-Factory answers; nothing else imports this module.

Their warnings are hidden. The first question reports a package that is missing, since it imports it again.
"""

import gc
import importlib
import os

NOTHING = os.open(os.devnull, os.O_RDWR)
for stream in (1, 2):
    os.dup2(NOTHING, stream)
os.environ.pop("PYTHONSAFEPATH", None)  # it was for this process alone
for library in ("llamafactory.data", "llamafactory.hparams", "llamafactory.model"):
    importlib.import_module(library)
importlib.import_module("tuneyard.recipes.inspection")
gc.freeze()  # forks need no copy of what the collector would touch
