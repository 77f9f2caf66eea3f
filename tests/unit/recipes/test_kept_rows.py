"""An output_dir whose rows were compiled anew names the command that brings them back."""

from pathlib import Path

import pytest

from tests.json_files import write_json, write_lines
from tests.unit.compiler.conftest import ROWS
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.publish.compile import compile_dataset
from tuneyard.compiler.publish.registry import Registry
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.datasets.kept import kept_datasets
from tuneyard.recipes.output_dir.record import inputs_of, kept_rows
from tuneyard.recipes.recipe import read_recipe


@pytest.fixture
def compile_rte(tmp_path: Path):
    """Compile so many rows into `data` as rte."""

    def run(count: int) -> None:
        source = tmp_path / "train.jsonl"
        rows = [ROWS[0] | {"idx": number, "sentence1": f"{number}."} for number in range(count)]
        write_lines(source, rows)
        compile_dataset(CompileRequest(load_spec("rte"), sources=(str(source),), out=tmp_path / "data"))

    return run


def test_the_rows_of_a_run_are_found_where_they_are_kept(tmp_path: Path, compile_rte) -> None:
    recipe_file = tmp_path / "r.yaml"
    recipe_file.write_text(
        f"model_name_or_path: m\ndataset: alpaca_rte_train\ndataset_dir: {tmp_path / 'data'}\n"
        f"output_dir: {tmp_path / 'run'}\nstage: sft\ntemplate: qwen\n"
    )
    recipe = read_recipe(recipe_file)
    compile_rte(3)
    (tmp_path / "run").mkdir()
    write_json(tmp_path / "run/started.json", inputs_of(recipe, None))
    assert kept_rows(tmp_path / "run", inputs_of(recipe, None)) == []
    compile_rte(4)
    compile_rte(5)
    earlier = kept_datasets(tmp_path / "data")
    assert [len(each.entries) for each in earlier] == [1, 1]
    (reference,) = kept_rows(tmp_path / "run", inputs_of(recipe, None))
    assert reference == earlier[1].reference  # of three rows, put aside first
    Registry(tmp_path / "data").restore(reference)
    assert kept_rows(tmp_path / "run", inputs_of(recipe, None)) == []
