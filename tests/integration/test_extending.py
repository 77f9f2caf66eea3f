"""What an engineer copies from docs/extending.md into the checkout passes the checks of the checkout."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

EXAMPLES = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs/extending.md").read_text(encoding="utf-8"), re.DOTALL
)
UNANNOTATED = "@scoring_command"
"""The one example that refers to a file for its annotations: seven more imports would hide the rest."""


@pytest.mark.slow
def test_annotated_examples_pass_mypy(tmp_path: Path) -> None:
    annotated = [code for code in EXAMPLES if UNANNOTATED not in code]
    assert len(annotated) == len(EXAMPLES) - 1 == 7
    paths = [tmp_path / f"example{number}.py" for number in range(len(annotated))]
    for path, code in zip(paths, annotated, strict=True):
        path.write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "Success: no issues found in 7 source files\n")
