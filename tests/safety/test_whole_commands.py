"""Commands end at a sparse file of 5 GB and at a pipe: a message with the place, in 3 GB of addresses.

SECURITY.md, "Texts".
"""

import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testing.tiny import write_adapter
from tests.conftest import ROOT
from tests.json_files import write_json

SIZE = 5_000_000_000
ADDRESSES = 3_000_000_000
PLACES = {
    "dataset_info/dataset_info.json": ("data list", "data stats rows", "recipe check r.yaml --quick"),
    "dataset_info/rows.jsonl": (
        "data stats rows",
        "data diff rows rows",
        "recipe check r.yaml",
        "recipe plan r.yaml",
        "recipe train r.yaml",
    ),
    "rows.csv": ("data init rows.csv",),
    "spec.yaml": ("data check spec.yaml",),
    "r.yaml": ("recipe check r.yaml", "recipe train r.yaml"),
    "saves/a/adapter_config.json": ("adapter show a",),
    "saves/a/adapter_model.safetensors": ("adapter show a", "adapter merge a=0.5 a=0.5 --out o"),
    "saves/a/trainer_state.json": ("recipe best saves/a",),
    "log.csv": ("eval compare log.csv --out o",),
    "log.jsonl": ("eval compare log.jsonl --out o",),
    "sheet.csv": ("eval ab tally sheet.csv",),
    "suite.yaml": ("eval suite suite.yaml --model m --out o",),
}
CASES = [(place, command) for place, commands in PLACES.items() for command in commands]
CONTENTS: dict[str, Callable[[Path], None]] = {
    "a sparse file": lambda path: (path.touch(), os.truncate(path, SIZE))[0],
    "a pipe": os.mkfifo,
}
RECIPE = """\
model_name_or_path: m
stage: sft
do_train: true
finetuning_type: lora
dataset: rows
dataset_dir: dataset_info
output_dir: saves/new
template: qwen
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one of each file, whose content is read before the hostile one."""
    (tmp_path / "dataset_info").mkdir()
    write_json(tmp_path / "dataset_info/dataset_info.json", {"rows": {"file_name": "rows.jsonl"}})
    (tmp_path / "dataset_info/rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (tmp_path / "r.yaml").write_text(RECIPE)
    write_adapter(tmp_path / "saves/a")
    write_json(tmp_path / "key.json", {})
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize(("place", "command"), CASES)
def test_a_command_ends_at_a_hostile_file(folder: Path, place: str, command: str, content: str) -> None:
    path = folder / place
    path.unlink(missing_ok=True)
    CONTENTS[content](path)
    done = subprocess.run(
        [sys.executable, "-c", "from tuneyard.__main__ import main; main()", *command.split()],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES)),
    )
    printed = done.stdout + done.stderr
    assert done.returncode in (1, 2), printed
    assert "Traceback" not in printed and "emory" not in printed, printed
    assert Path(place).name in printed or str(Path(place).parent) in printed, printed
