"""Conversations as other tools write them are read whole, or refused with the reason."""

import json
import shutil

import pytest

from tests.unit.compiler.conftest import error_codes
from tuneyard.compiler.chat.message_forms import ROLES, common_messages
from tuneyard.core.installation.checkout import ROOT

ASK, ANSWER = {"role": "user", "content": "Name a river."}, {"role": "assistant", "content": "The Rhine."}
IMAGE = ROOT / "tests/examples/good/media"


@pytest.mark.parametrize("role", ["model", "bot", "chatbot", "bard", "chatgpt", "bing"])
def test_models_of_other_names_are_the_assistant(role):
    assert ROLES[role] == ROLES["assistant"]


def test_a_spec_says_who_speaks_under_other_roles(bench):
    roles = "{names: [messages], is: turns, roles: {patient: user, doctor: assistant}}"
    spec = f"about: own\nlike: messages\ncolumns:\n  turns: {roles}\n"
    row = {"messages": [{"role": "patient", "content": "It hurts."}, {"role": "doctor", "content": "Where?"}]}
    bench.compile_rows(spec, [row])
    turns = bench.first("messages.jsonl")["conversations"]
    assert [turn["from"] for turn in turns] == ["human", "gpt"]


THANKS, GREETING = {"role": "user", "content": "Thanks."}, {"role": "assistant", "content": "Hello!"}
SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize(
    ("option", "one", "two", "alone"),
    [
        ("unanswered", [ASK, ANSWER, THANKS], [ASK, ANSWER, THANKS, {"from": "human", "value": "!"}], ASK),
        ("unasked", [GREETING, ASK, ANSWER], [GREETING, GREETING, ASK, ANSWER], GREETING),
    ],
)
def test_what_has_no_answer_or_no_question_is_left_out_if_the_spec_says_so(bench, option, one, two, alone):
    talks = [one, [SYSTEM, *two], [ASK, ANSWER], [alone]]
    source = bench.rows("a.jsonl", [{"messages": talk} for talk in talks])
    refused = bench.compile("messages", source)
    assert [problem.place.line for problem in refused.problems.errors] == [1, 2, 4]
    assert f"`{option}: drop`" in refused.problems.errors[0].message
    column = f"{{names: [messages], is: turns, {option}: drop}}"
    report = bench.compile(f"about: own\nlike: messages\ncolumns:\n  turns: {column}\n", source, reject=True)
    assert [(problem.code, problem.place.line) for problem in report.problems.errors] == [("E107", 4)]
    talk = [{"from": "human", "value": "Name a river."}, {"from": "gpt", "value": "The Rhine."}]
    with_system = [{"from": "system", "value": "Be brief."}, *talk]
    assert bench.values("messages.jsonl", "conversations") == [talk, with_system, talk]
    (note,) = (note for note in report.problems.notes if option in note)
    assert "2 conversations" in note


def compile_parts(bench, *parts):
    """Compile a conversation whose answer has these parts."""
    return bench.compile_rows("messages", [{"messages": [ASK, ANSWER | {"content": list(parts)}]}])


@pytest.mark.parametrize(
    "parts",
    [
        [{"type": "text", "text": "The Rhine.", "train": False}],
        [{"type": "text", "value": "a", "loss_weight": 0}, {"type": "text", "value": "b", "loss_weight": 1}],
    ],
)
def test_a_mark_in_a_part_is_one_of_its_turn(bench, parts):
    assert error_codes(compile_parts(bench, *parts)) == ["E113"]


def test_unused_keys_of_parts_are_counted(bench):
    part = {"type": "text", "text": "The Rhine.", "cache_control": {"type": "ephemeral"}}
    assert compile_parts(bench, part).unused.rows == {"messages.cache_control": 1}


def test_unused_keys_of_turns_are_listed_alike_in_every_run(bench):
    keys = ["omega", "beta", "zeta", "alpha", "mid", "tau"]
    rows = [{"messages": [ASK, ANSWER | dict.fromkeys(keys, "x")]}]
    report = bench.compile_rows("messages", rows)
    assert [*report.unused.rows] == [f"messages.{key}" for key in sorted(keys)]


def test_images_in_the_turns_go_to_the_column_of_images(bench, tmp_path):
    picture = next(IMAGE.rglob("*.png"))
    shutil.copy(picture, tmp_path / "a.png")
    parts = [{"type": "text", "text": "What is "}, {"type": "image_url", "image_url": {"url": "a.png"}}]
    row = {"messages": [ASK | {"content": parts}, ANSWER]}
    bench.compile_rows("media", [row])
    (record,) = bench.records("media.json")
    assert record["images"] == ["a.png"]
    assert record["conversations"][0]["value"] == "What is <image>"


@pytest.mark.parametrize("url", ["https://example.org/a.png", "data:image/png;base64,iVBO", "gone.png"])
def test_an_image_that_is_no_file_is_refused(bench, url):
    row = {"messages": [ASK | {"content": [{"type": "image_url", "image_url": {"url": url}}]}, ANSWER]}
    report = bench.compile_rows("media", [row])
    assert error_codes(report) == ["E110"]


def test_results_of_several_calls_are_read_in_the_order_of_the_calls(bench):
    use = [{"type": "tool_use", "id": name, "name": name, "input": {}} for name in ("a", "b")]
    results = [
        {"type": "tool_result", "tool_use_id": name, "content": text}
        for name, text in (("b", "2"), ("a", "1"))
    ]
    row = {"messages": [ASK, ANSWER | {"content": use}, ASK | {"content": results}, ANSWER]}
    bench.compile_rows("messages", [row])
    turns = bench.first("messages.jsonl")["conversations"]
    assert turns[2] == {"from": "observation", "value": "1\n</tool_response>\n<tool_response>\n2"}


def test_an_answer_that_is_json_stays_text(bench):
    answers = {"chosen": json.dumps([{"a": 1}]), "rejected": "none"}
    bench.compile_rows("pairs-chat", [{"prompt": [ASK], **answers}])
    assert bench.first("pairs-chat.json")["chosen"]["value"] == '[{"a": 1}]'


@pytest.mark.parametrize(
    "parts",
    [
        [None],
        [1],
        [{}],
        [{"type": ["text"]}],
        [{"type": "text"}],
        [{"type": "text", "text": None}],
        {"a": 1},
        [],
    ],
)
@pytest.mark.parametrize("key", ["content", "parts"])
def test_hostile_parts_are_refused_with_their_turn(bench, parts, key):
    turn = {"role": "user", key: parts}
    report = bench.compile_rows("messages", [{"messages": [turn, ANSWER]}])
    assert error_codes(report) == ["E107"]


@pytest.mark.parametrize(
    ("answers", "learned", "notes"),
    [
        (["The Rhine."], "The Rhine.", 0),
        (["Rhine", "Rhine"], "Rhine", 0),
        (["Rhine", "The Rhine"], "Rhine", 1),
    ],
)
def test_of_several_right_answers_the_first_is_learned(bench, answers, learned, notes):
    report = bench.compile_rows("qa", [{"question": "A river?", "answers.text": answers}])
    assert bench.first("qa.json")["output"] == learned
    assert sum("of which the first is learned" in note for note in report.problems.notes) == notes


def test_a_completion_ends_the_turns_of_its_prompt(bench):
    """TRL's KTO, conversational and plain."""
    wanted = {"prompt": [ASK], "completion": [ANSWER], "label": True}
    unwanted = {"prompt": "Name a river.", "completion": "A hill.", "label": False}
    bench.compile_rows("kto", [wanted, unwanted])
    talks = [[turn["value"] for turn in record["conversations"]] for record in bench.records("kto.json")]
    assert talks == [["Name a river.", "The Rhine."], ["Name a river.", "A hill."]]


@pytest.mark.parametrize(
    ("prompt", "completion", "code"),
    [
        ([ASK, ANSWER], [ANSWER], "E107"),
        ([ASK], [ANSWER | {"weight": 0}], "E113"),
        ([ASK], [ASK, ANSWER], "E107"),
        ([ASK], "", "E107"),
        ([ASK], None, "E103"),
    ],
)
def test_a_completion_that_does_not_fit_is_refused(bench, prompt, completion, code):
    rows = [{"prompt": prompt, "completion": completion, "label": True}]
    report = bench.compile_rows("kto", rows)
    assert error_codes(report) == [code]


def test_a_role_that_is_a_list_stays_for_the_check_with_renamed_roles():
    talk = [{"role": ["x"], "content": "a"}, {"role": "usr", "content": "b"}]
    assert common_messages(talk, {"usr": "user"}) == [talk[0], {"role": "user", "content": "b"}]
