"""python -m tests.bench   every benchmark in turn; each prints ratios measured in one run."""

import subprocess
import sys
from pathlib import Path

for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    print(f"\n## {path.stem}", flush=True)
    subprocess.run([sys.executable, "-m", f"tests.bench.{path.stem}"], check=True)
