"""What a model folder may not do when it is loaded."""

import shutil
from pathlib import Path

from tests.json_files import read_json, write_json
from tests.messages import raises
from tests.unit.adapters.make import make
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.models.load import find_model, load_model


def test_the_name_of_an_adapter_is_not_sought_on_the_hub(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(make(tmp_path / "saves/rte").parents[1])
    with raises(RequestError, "saves/rte: an adapter"):
        find_model("rte")


def test_a_model_with_code_of_its_own_is_refused_and_nobody_is_asked(tiny_model, tmp_path, monkeypatch):
    """Transformers would ask on the terminal whether to run it, and run it at a `y`."""
    own = Path(shutil.copytree(tiny_model, tmp_path / "own"))
    config = read_json(own / "config.json")
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    write_json(own / "config.json", config)
    (own / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    asked = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    with raises(ContentError, "own"):
        load_model(own, "fp32")
    assert not asked and not (tmp_path / "ran").exists()
