"""What a model folder may not do when it is loaded."""

import shutil
from pathlib import Path

from tests.json_files import read_json, write_json
from tests.messages import raises
from tuneyard.core.errors import ContentError
from tuneyard.eval.backends.load import load_model


def test_a_model_with_code_of_its_own_is_refused_and_nobody_is_asked(tiny_model, tmp_path, monkeypatch):
    """Transformers would ask on the terminal whether to run it, and run it at a `y`."""
    own = Path(shutil.copytree(tiny_model, tmp_path / "own"))
    config = read_json(own / "config.json")
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    write_json(own / "config.json", config)
    (own / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    asked: list[object] = []
    monkeypatch.setattr("builtins.input", lambda *words: asked.append(words) or "y")
    with raises(ContentError, "own"):
        load_model(own, "fp32")
    assert not asked and not (tmp_path / "ran").exists()
