"""`python -m recipes …` as a user types it: exit codes, messages as they stand, nothing written."""

import sys

from tests.conftest import ROOT
from tests.messages import printed
from tuneyard.recipes.__main__ import cli

BAD = """# a recipe with one mistake of most kinds
model_name_or_path: ./no/such/model
stage: sfx
do_train: true
finetuning_type: lora
template: qwn
dataset_dir: .
dataset: alpaca_mnly_train
output_dir: my saves/x
learning_rat: 1.0e-4
num_train_epochs: three
save_strategy: no
eval_strategy: steps
load_best_model_at_end: true
deepspeed: recipes/deepspeed/z9.json
enable_liger_kernel: true
pure_bf16: true
"""


def test_every_problem_at_once(run, tmp_path):
    (tmp_path / "bad.yaml").write_text(BAD)
    asked = ("check", "--for", "cpu", "--quick", tmp_path / "bad.yaml", f"dataset_dir={tmp_path}")
    done = run("-m", "recipes", *asked, code=1)
    said = done.stdout.replace(str(tmp_path), "FOLDER")
    for installer in (f"uv pip install --python {sys.executable}", f"{sys.executable} -m pip install"):
        said = said.replace(installer, "python -m pip install")  # by what is installed here
    assert said == (ROOT / "tests/golden/recipes/bad.txt").read_text()
    printed(done.stderr, "error", "1 of 1 recipes")


def test_codes_of_the_golden_file_are_documented():
    page = (ROOT / "docs/problems.md").read_text()
    for line in (ROOT / "tests/golden/recipes/bad.txt").read_text().splitlines()[:-1]:
        code = line.split(": ")[1].split()[0]
        assert code in page, code


def test_training_a_bad_recipe_starts_nothing(here, tmp_path):
    (tmp_path / "bad.yaml").write_text(BAD)
    done = here(cli, "train", tmp_path / "bad.yaml", f"output_dir={tmp_path / 'out'}", code=1)
    assert 'did you mean "learning_rate"?' in done.stderr
    assert not (tmp_path / "out").exists()


def test_requests_that_cannot_be_served(here, tmp_path):
    for arguments, message in {
        ("train", "recipes/none.yaml"): "recipe not found",
        ("check", "lora_rank=4"): "no recipe named",
        ("best", tmp_path): "no trainer_state.json",
        ("sweep", "recipes/rte.yaml", "rank="): "expected a setting and its values",
    }.items():
        assert message in here(cli, *arguments, code=2).stderr
