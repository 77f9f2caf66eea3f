"""init on conversations and questions with media, pairs or KTO marks: what it proposes compiles."""

import re

import pytest
from PIL import Image

from tests.messages import printed_line
from tests.real_data import real_path
from tuneyard.compiler.init.command import propose
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.language.message import translated

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
    "hh-rlhf": {
        "rejected": "\n\nHuman: Name a river.\n\nAssistant: A river.",
        "chosen": "\n\nHuman: Name a river.\n\nAssistant: The Rhine.",
    },
    "ratings": {
        "instruction": "Name a river.",
        "completions": [
            {"model": "a", "response": "A river.", "overall_score": 2.5},
            {"model": "b", "response": "The Rhine.", "overall_score": 8},
        ],
    },
    "ultrafeedback": {"prompt": "Name a river.", "chosen": [*ASK, *GOOD], "rejected": [*ASK, *BAD]},
}


def proposed(bench, path):
    spec = load_spec(str(bench.write("own.yaml", propose(path)[0])))
    report = bench.compile(bench.folder / "own.yaml", f"{spec.input_names[0]}={path}")
    assert not report.failed, report.problems.errors
    return spec, report


@pytest.mark.parametrize("form", FORMS)
def test_pairs_in_the_forms_in_circulation(form, bench):
    path = bench.rows("rows.jsonl", [{**FORMS[form], "id": n} for n in range(3)])
    spec, report = proposed(bench, path)
    assert {"chosen", "rejected"} <= {column.type.name for column in spec.columns}
    assert report.kept == 3


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("dpo_en_demo", {"chosen", "rejected"}), ("dpo_zh_demo", {"chosen", "rejected"}),
        ("kto_en_demo", {"kto"}), ("mllm_demo", {"images"}), ("mllm_video_audio_demo", {"videos", "audios"}),
    ],
)  # fmt: skip
def test_llamafactorys_own_demo_files(name, kinds, bench):
    source = real_path(f"lf/data/{name}.json")
    spec, report = proposed(bench, source)
    assert {column.type.name for column in spec.columns} >= kinds
    assert report.kept + report.dropped.get("duplicate", 0) == report.read


@pytest.mark.parametrize("form", ["trl", "llamafactory"])
def test_of_pairs_both_answers_are_shown_and_the_bundled_spec_of_pairs_is_named(form, bench):
    said = "\n".join(map(translated, propose(bench.rows("rows.jsonl", [FORMS[form]]))[1:]))
    assert "\n  user: Name a river.\n  chosen: The Rhine.\n  rejected: A river.\n" in said
    assert "  answer:" not in said and "This file fits the bundled spec pairs-chat;" in said
    printed_line(said, "recipe check recipes/dpo-lora.yaml dataset=rows output_dir=saves/rows")


def test_media_and_plain_text_get_a_model_that_reads_them(bench):
    Image.new("RGB", (8, 8)).save(bench.folder / "a.png")
    said = "\n".join(propose(bench.rows("seen.jsonl", [TALK | {"images": ["a.png"]}]))[1:])
    assert "This file fits the bundled spec media;" in said
    printed_line(said, "recipe check recipes/vl-lora.yaml dataset=seen output_dir=saves/seen")
    said = "\n".join(propose(bench.rows("text.jsonl", [{"text": "The Rhine is a river in Europe."}]))[1:])
    printed_line(said, "recipe check recipes/text-lora.yaml")


TALK = {"messages": [*ASK, *GOOD]}
LLAVA = [{"from": "human", "value": "<image>\nWhat is this?"}, {"from": "gpt", "value": "A square."}]
ADDED = {"instruction": "2+2?", "output": "4"}
COMPLETED = {"prompt": "Name a river."}


@pytest.mark.parametrize(
    ("rows", "kind", "named"),
    [
        ([TALK | {"images": ["a.png"]}], "images", "media"),
        ([{"image": "a.png", "conversations": LLAVA}], "images", "media"),
        ([TALK | {"kto_tag": mark} for mark in ("true", "false")], "kto", "kto"),
        ([COMPLETED | {"completion": f"R{n}.", "label": n > 0} for n in (0, 1)], "kto", ""),
        ([ADDED | {"history": []}, ADDED | {"history": [["1+1?", "2"]]}], "history", "alpaca"),
    ],
)
def test_what_stands_beside_turns_and_questions_is_read(rows, kind, named, bench):
    Image.new("RGB", (8, 8)).save(bench.folder / "a.png")
    path = bench.rows("rows.jsonl", rows)
    spec, report = proposed(bench, path)
    assert kind in {column.type.name for column in spec.columns} and report.kept == len(rows)
    assert not named or f"This file fits the bundled spec {named};" in propose(path)[1]


@pytest.mark.parametrize(
    ("answers", "named"), [({"output": "4"}, ["io"]), ({"chosen": "4", "rejected": "5"}, ["pairs"])]
)
def test_a_system_text_beside_instructions_is_read_and_no_spec_without_it_is_named(bench, answers, named):
    rows = [
        {"instruction": f"2+{n}?", "input": "", **answers, "system": "Be brief." * (n % 2)} for n in range(4)
    ]
    text, said, _ = propose(bench.rows("t.jsonl", rows))
    assert re.findall("bundled spec (.+);", said) == named and "kept 4" in said
    bench.compile(text)
    assert bench.values("t.jsonl", "system") == ["", "Be brief.", "", "Be brief."]
