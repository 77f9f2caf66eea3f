"""init on conversations and questions with media, pairs or KTO marks: what it proposes compiles."""

import json

import pytest
from PIL import Image

from compiler.init.propose import propose
from compiler.pipeline import compile_spec
from compiler.request import CompileRequest
from compiler.spec import load_spec
from tests.conftest import REAL

ASK = [{"role": "user", "content": "Name a river."}]
GOOD, BAD = ([{"role": "assistant", "content": text}] for text in ("The Rhine.", "A river."))
PAIR = {"chosen": GOOD, "rejected": BAD}
FORMS = {
    "text": {"prompt": "Name a river.", "chosen": "The Rhine.", "rejected": "A river."},
    "alpaca": {"instruction": "Name a river", "input": "in Germany", "chosen": "The Rhine.", "rejected": "A"},
    "trl": {"prompt": ASK, **PAIR},
    "llamafactory": {
        "conversations": [{"from": "human", "value": "Name a river."}],
        "chosen": {"from": "gpt", "value": "The Rhine."},
        "rejected": {"from": "gpt", "value": "A river."},
    },
    "ultrafeedback": {"prompt": "Name a river.", "chosen": [*ASK, *GOOD], "rejected": [*ASK, *BAD]},
}


def proposed(path, tmp_path):
    (tmp_path / "own.yaml").write_text(propose(path)[0])
    spec = load_spec(str(tmp_path / "own.yaml"))
    report = compile_spec(spec, CompileRequest(sources=(f"{spec.parts[0]}={path}",), out=tmp_path / "out"))
    assert not report.failed, report.problems.errors
    return spec, report


@pytest.mark.parametrize("form", FORMS)
def test_pairs_in_the_forms_in_circulation(form, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({**FORMS[form], "id": n}) + "\n" for n in range(3)))
    spec, report = proposed(path, tmp_path)
    assert {"chosen", "rejected"} <= {column.kind for column in spec.columns}
    assert report.kept == 3


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("dpo_en_demo", {"chosen", "rejected"}), ("dpo_zh_demo", {"chosen", "rejected"}),
        ("kto_en_demo", {"kto"}), ("mllm_demo", {"images"}), ("mllm_video_audio_demo", {"videos", "audios"}),
    ],
)  # fmt: skip
def test_llamafactorys_own_demo_files(name, kinds, tmp_path):
    source = REAL / "lf/data" / f"{name}.json"
    if not source.is_file():
        pytest.skip(f"no real data at {REAL}")
    spec, report = proposed(source, tmp_path)
    assert {column.kind for column in spec.columns} - {"turns", "extra"} == kinds
    assert report.kept == report.read


def test_images_beside_conversations(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": [*ASK, *GOOD], "images": ["a.png"]}) + "\n")
    spec, _ = proposed(path, tmp_path)
    assert "images" in {column.kind for column in spec.columns}
