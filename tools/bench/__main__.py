"""python -m tools.bench [PART…]   every benchmark, or some. Each prints ratios measured in one run."""

import argparse
import subprocess
import sys
from pathlib import Path

PARTS = sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py"))
parser = argparse.ArgumentParser("python -m tools.bench", description=__doc__)
parser.add_argument("parts", nargs="*", metavar="PART", help=f"One of {', '.join(PARTS)}. [default: all]")
for part in parser.parse_args().parts or PARTS:
    if part not in PARTS:
        parser.error(f"no part {part!r}; the parts are {', '.join(PARTS)}")
    print(f"\n## {part}", flush=True)
    subprocess.run([sys.executable, "-m", f"tools.bench.{part}"], check=True)
