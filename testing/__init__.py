"""What tests and the programs in tools/ both need: these two do not import each other. It is in no wheel."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The checkout."""
Done = subprocess.CompletedProcess[str]
