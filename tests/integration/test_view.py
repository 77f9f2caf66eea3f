"""`data view` beside the real LLaMA-Factory: what the page shows as learned is what its collators learn."""

import json
import shutil
from pathlib import Path

import pytest

from testing.tiny import make_seeing
from tests.cli.scoring import call
from tests.integration.test_verify import TOOLS
from tests.json_files import write_json
from tests.messages import raises
from tuneyard.compiler.cli import cli
from tuneyard.compiler.verify.dataset import load
from tuneyard.compiler.verify.recipe_file import read_settings
from tuneyard.compiler.view.build import build
from tuneyard.compiler.view.payload import CUT, LEARNED, MASKED, PageRow, ViewPayload
from tuneyard.core.errors import RequestError
from tuneyard.core.llamafactory.loader import quiet
from tuneyard.core.llamafactory.prompt.token_losses import TokenLosses, TokenLossFile

pytestmark = pytest.mark.slow
IGNORED = -100
CALL = '{"name": "add", "arguments": {"a": 5}}'
LONG = "It is 7, 不确定. " * 30


def said(*turns: tuple[str, str], **others: object) -> dict[str, object]:
    return {"conversations": [{"from": role, "value": text} for role, text in turns], **others}


ALPACA = [
    {"instruction": "Is 7 even? 你好🙂", "input": "", "output": "no"},
    {"instruction": LONG, "input": "in", "output": LONG, "system": "Be terse.", "history": [["a", "b"]]},
    {"instruction": "And 8?", "input": "", "output": "", "history": [["Is 6 even?", LONG], [LONG, "c"]]},
]
PROBES = [
    said(("human", "Sum."), ("function_call", CALL), ("observation", "5"), ("gpt", "It is 5."), tools=TOOLS),
    said(("human", "Hi"), ("gpt", "<think>\nAdd.\n</think>\n\nHello"), ("human", LONG), ("gpt", LONG)),
    said(("human", "x"), ("gpt", LONG), ("human", "y"), ("gpt", "z")),
]
PAIRED = [
    {"instruction": "Is 7 even?", "chosen": "No.", "rejected": "Yes, 当然."},
    {"instruction": LONG, "chosen": LONG, "rejected": "Yes."},
]
MARKED = [
    {"instruction": "Is 7 even?", "output": "No.", "good": True},
    {"instruction": LONG, "output": LONG + LONG, "good": False},
]
TEXTS = [{"text": "One line. 你好"}, {"text": LONG}]
ALPACA_COLUMNS = {
    "prompt": "instruction", "query": "input", "response": "output", "system": "system", "history": "history",
}  # fmt: skip
PLAIN = {"columns": {"prompt": "instruction", "response": "output"}}
FORMATS = {
    "sft": (ALPACA, {"columns": ALPACA_COLUMNS}),
    "talks": (
        PROBES,
        {"formatting": "sharegpt", "columns": {"messages": "conversations", "tools": "tools"}},
    ),
    "rm": (
        PAIRED,
        {"ranking": True, "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"}},
    ),
    "kto": (
        MARKED,
        {"columns": {"prompt": "instruction", "response": "output", "kto_tag": "good"}},
    ),
    "pt": (TEXTS, {"columns": {"prompt": "text"}}),
}


@pytest.fixture
def registered(tmp_path: Path):
    """Register rows as the dataset `mine`."""

    def register(rows: list[dict[str, object]], entry: dict[str, object]) -> Path:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / "mine.jsonl").write_text(text)
        write_json(tmp_path / "dataset_info.json", {"mine": {"file_name": "mine.jsonl", **entry}})
        return tmp_path

    return register


def seen(payload: ViewPayload) -> list[PageRow]:
    """The rows of a page whose counts add up: spans cover the texts, states the tokens."""
    for row in payload.rows:
        states = [span[1] for side in row.sides for turn in side.turns for span in turn.spans]
        assert len(states) == row.tokens
        assert (states.count(LEARNED), states.count(CUT)) == (row.learned, row.cut)
        for side in row.sides:
            for turn in side.turns:
                assert sum(span[0] for span in turn.spans) == len(turn.text)
    return payload.rows


def texts_of(row: PageRow, side: int, *states: int) -> str:
    """The text of a side's tokens in these states."""
    text = ""
    for turn in row.sides[side].turns:
        place = 0
        for length, state, *_ in turn.spans:
            if state in states:
                text += turn.text[place : place + length]
            place += length
    return text


def batches(folder: Path, settings: dict[str, object]):
    """What LLaMA-Factory's own collator makes of each row: for each sequence its ids and labels."""
    from llamafactory.data.collator import (
        KTODataCollatorWithPadding,
        PairwiseDataCollatorWithPadding,
        SFTDataCollatorWith4DAttentionMask,
    )

    data, rows = load("mine", folder, settings, str(folder / "cache"), 1)
    with quiet():
        data = data.with_tokenizer().with_template()
        encoded = data.encoder().preprocess_dataset(rows[:])
    tokenizer = data.module["tokenizer"]
    if data.stage == "pt":
        return tokenizer, [[(ids, ids)] for ids in encoded["input_ids"]]
    kinds = {"rm": PairwiseDataCollatorWithPadding, "kto": KTODataCollatorWithPadding}
    collator = kinds.get(data.stage, SFTDataCollatorWith4DAttentionMask)(
        template=data.template, tokenizer=tokenizer, label_pad_token_id=IGNORED, padding="longest"
    )
    sequences = []
    for number in range(len(next(iter(encoded.values())))):
        row = {key: values[number] for key, values in encoded.items()}
        with quiet():
            batch = collator([row])
        sides = []
        for ids, labels, mask in zip(
            batch["input_ids"].tolist(),
            batch["labels"].tolist(),
            batch["attention_mask"].tolist(),
            strict=True,
        ):
            kept = [place for place, is_read in enumerate(mask) if is_read]
            sides.append(([ids[place] for place in kept], [labels[place] for place in kept]))
        sequences.append(sides)
    return tokenizer, sequences


SETTINGS = [
    {},
    {"cutoff_len": 64},
    {"cutoff_len": 30},
    {"cutoff_len": 64, "mask_history": True},
    {"train_on_prompt": True},
]


TEMPLATES = {"sft": ["qwen", "qwen3", "solar", "llama2"], "talks": ["qwen", "qwen3", "solar", "llama2"]}
"""Turns are written by the template; of other formats two templates suffice."""


@pytest.mark.parametrize(
    ("name", "template"),
    [(name, template) for name in FORMATS for template in TEMPLATES.get(name, ["qwen", "llama2"])],
)
def test_learned_tokens_are_those_of_the_collator(registered, tiny_model, name, template):
    rows, entry = FORMATS[name]
    folder = registered(rows, entry)
    for options in SETTINGS:
        stage = {"talks": "sft"}.get(name, name)
        is_refused = stage != "sft" or template == "solar"
        if is_refused and options.keys() - {"cutoff_len"}:
            continue
        settings = {"model_name_or_path": str(tiny_model), "template": template, "stage": stage, **options}
        if stage == "pt":
            settings["packing"] = False
        payload = build("mine", folder, settings)
        shutil.rmtree(folder / "cache", ignore_errors=True)
        tokenizer, expected = batches(folder, settings)
        page_rows = seen(payload)
        assert len(page_rows) == len(rows) == len(expected)
        for page_row, sides in zip(page_rows, expected, strict=True):
            assert page_row.note == ""
            assert page_row.tokens - page_row.cut == sum(len(ids) for ids, _ in sides)
            assert page_row.learned == sum(label != IGNORED for _, labels in sides for label in labels)
            for number, (ids, labels) in enumerate(sides):
                learned = [token for token, label in zip(ids, labels, strict=True) if label != IGNORED]
                assert texts_of(page_row, number, MASKED, LEARNED) == decoded(tokenizer, ids)
                assert texts_of(page_row, number, LEARNED) == decoded(tokenizer, learned)
        assert payload.all_rows == len(payload.rows) == len(rows)
        assert payload.tokens == sum(row.tokens for row in page_rows)
        assert payload.learned == sum(row.learned for row in page_rows)
        assert payload.cut == sum(row.cut for row in page_rows)
        assert sum(count for *_, count in payload.bins) == len(rows)


def decoded(tokenizer, ids: list[int]) -> str:
    """Text of tokens. Of a character that is cut in the middle the page shows nothing before the cut."""
    return tokenizer.decode(ids).replace("\ufffd", "")


def test_roles_and_parts_of_turns(registered, tiny_model):
    row = said(
        ("human", "Sum."),
        ("function_call", f"<think>\nAdd.\n</think>\n\n{CALL}"),
        ("observation", "5"),
        ("gpt", "5"),
        tools=TOOLS,
        system="Be terse.",
    )
    columns = {"messages": "conversations", "tools": "tools", "system": "system"}
    folder = registered([row], {"formatting": "sharegpt", "columns": columns})
    settings = {"model_name_or_path": str(tiny_model), "template": "qwen"}
    (page_row,) = seen(build("mine", folder, settings))
    turns = [(turn.role, turn.part, turn.text) for turn in page_row.sides[0].turns]
    assert [turn[:2] for turn in turns if turn[0] != "template"] == [
        ("system", "text"),
        ("user", "text"),
        ("function", "thought"),
        ("function", "tool_call"),
        ("observation", "tool_result"),
        ("assistant", "text"),
    ]
    by_part = {part: text for role, part, text in turns if role in ("function", "observation")}
    assert by_part["thought"] == "<think>\nAdd.\n</think>\n\n"
    assert by_part["tool_call"] == f"<tool_call>\n{CALL}\n</tool_call>"
    assert by_part["tool_result"] == "5"
    (system,) = (text for role, _, text in turns if role == "system")
    assert system.startswith("Be terse.") and '"add"' in system
    assert (
        texts_of(page_row, 0, LEARNED)
        == f"{by_part['thought']}{by_part['tool_call']}<|im_end|>\n5<|im_end|>\n"
    )


def test_an_empty_thought_is_shown_where_the_template_adds_it(registered, tiny_model):
    folder = registered(ALPACA[:1], PLAIN)
    for thinks, state in ((True, LEARNED), (False, MASKED)):
        settings = {"model_name_or_path": str(tiny_model), "template": "qwen3", "enable_thinking": thinks}
        (page_row,) = seen(build("mine", folder, settings))
        (thought,) = (turn for turn in page_row.sides[0].turns if turn.part == "thought")
        assert (thought.role, thought.text) == ("assistant", "<think>\n\n</think>\n\n")
        assert {span[1] for span in thought.spans} == {state}


def test_rows_that_are_cut_or_dropped_are_counted(registered, tiny_model):
    rows = [{"instruction": "q", "output": "a"}, {"instruction": LONG, "output": "b"}]
    folder = registered([*rows, {"instruction": "q", "output": None}], PLAIN)
    settings = {"model_name_or_path": str(tiny_model), "template": "qwen", "cutoff_len": 100}
    payload = build("mine", folder, settings)
    counts = {problem.code: problem.rows for problem in payload.problems}
    assert counts["W416"] == counts["cut"] == payload.over_cutoff == 1
    assert counts["E406"] == counts["dropped"] == 1 and next(iter(counts)) == "E406"


@pytest.mark.parametrize("model", [None, "EMPTY"])
def test_rows_without_tokens_if_there_is_no_model(registered, tmp_path, model):
    folder = registered(ALPACA, FORMATS["sft"][1])
    settings = {"model_name_or_path": str(tmp_path)} if model else {}
    payload = build("mine", folder, settings)
    assert payload.model == "" and payload.note
    assert [row.row for row in payload.rows] == [1, 2, 3] and not any(row.sides for row in payload.rows)
    assert json.loads(payload.rows[0].raw) == ALPACA[0]


def test_a_template_that_does_not_exist_is_refused(registered, tiny_model):
    folder = registered(ALPACA, FORMATS["sft"][1])
    with raises(RequestError, "qwem"):
        build("mine", folder, {"template": "qwem", "model_name_or_path": str(tiny_model)})


@pytest.mark.parametrize(
    ("rows", "code", "reason"),
    [
        ([{"instruction": "q", "output": "a"}, {"instruction": "q", "output": 7}], "E405", "cannot load it"),
        ([{"instruction": "2024-01-01", "output": "a"}], "E430", "timestamp"),
    ],
)
def test_a_file_that_llamafactory_cannot_load_still_has_a_page(
    registered, tiny_model, capsys, rows, code, reason
):
    folder = registered(rows, PLAIN)
    call(cli, "view", "mine", "--dataset-dir", folder, "--model", tiny_model, "--out", folder / "page.html")
    printed = capsys.readouterr()
    assert printed.out.startswith(f"mine: {len(rows)} row")
    assert code in (folder / "page.html").read_text()
    assert reason in printed.err and "--model DIR" not in printed.err


def test_rows_of_which_none_can_be_trained_are_no_fault_of_the_options(registered, tiny_model, capsys):
    folder = registered([said(("human", "a")), said(("human", "b"))], {"formatting": "sharegpt"})
    options = ["--dataset-dir", folder, "--model", tiny_model, "--template", "qwen"]
    call(cli, "view", "mine", *options, "--out", folder / "page.html")
    printed = capsys.readouterr()
    assert printed.out.startswith("mine: 2 rows, ") and "no tokens" not in printed.err
    assert 'data-value="dropped"' in (folder / "page.html").read_text()


def test_losses_go_to_tokens_with_the_same_ids(registered, tiny_model, tmp_path):
    folder = registered(ALPACA[:1] * 2, PLAIN)
    settings = {"model_name_or_path": str(tiny_model), "template": "qwen"}
    _, ((one,), _) = batches(folder, settings)
    ids, labels = one
    losses = [None if label == IGNORED else place / 4 for place, label in enumerate(labels)]
    file = tmp_path / "token_losses.jsonl"
    lines = [TokenLosses(1, ids, losses).line(), TokenLosses(2, [*ids[1:], 1], losses).line()]
    file.write_bytes(b"".join(lines))
    payload = build("mine", folder, settings, losses=TokenLossFile(file))
    first, second = seen(payload)
    spans = [span for turn in first.sides[0].turns for span in turn.spans]
    assert [span[2] if len(span) == 3 else None for span in spans] == losses
    known = [loss for loss in losses if loss is not None]
    assert first.loss == pytest.approx(sum(known) / len(known))
    assert second.loss is None and "other tokens" in second.note


def test_each_learned_token_has_the_weight_that_the_training_gives_it(registered, tiny_model, tmp_path):
    answers = ("no, it is not", "yes")
    folder = registered([{"instruction": "Is 7 even?", "output": answer} for answer in answers], PLAIN)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"model_name_or_path: {tiny_model}\ntemplate: qwen\ndataset: mine\n")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/mine.yaml").write_text("rules: [{words: ['no', 'yes'], weight: 5}]")
    for dataset, expected in (
        ("mine", {5.0: "noyes", 1.0: ", it is not<|im_end|>\n<|im_end|>\n"}),
        ("other", {}),
    ):
        payload = build("mine", folder, *read_settings(recipe, {"dataset": dataset}))
        weighed: dict[float, str] = {}
        for row in seen(payload):
            for turn in row.sides[0].turns:
                place = 0
                for length, state, *numbers in turn.spans:
                    if len(numbers) == 2:
                        assert state == LEARNED
                        weighed[numbers[1]] = weighed.get(numbers[1], "") + turn.text[place : place + length]
                    place += length
        assert weighed == expected


def test_images_are_small_and_their_tokens_have_their_own_part(tmp_path, registered):
    from PIL import Image

    Image.new("RGB", (400, 300), "red").save(tmp_path / "red.png")
    row = said(("human", "<image>What?"), ("gpt", "Red."), images=[str(tmp_path / "red.png")])
    columns = {"messages": "conversations", "images": "images"}
    folder = registered([row], {"formatting": "sharegpt", "columns": columns})
    model = make_seeing(tmp_path / "model")
    settings = {"model_name_or_path": str(model), "template": "qwen2_vl"}
    (page_row,) = seen(build("mine", folder, settings))
    (uri,) = page_row.images
    assert uri.startswith("data:image/jpeg;base64,") and len(uri) < 10_000
    (image,) = (turn for turn in page_row.sides[0].turns if turn.part == "image")
    assert image.role == "user" and set(image.text.split("<|image_pad|>")) == {""}
    assert texts_of(page_row, 0, LEARNED) == "Red.<|im_end|>\n"


def test_packed_texts_are_shown_whole(registered, tiny_model):
    rows, entry = FORMATS["pt"]
    folder = registered(rows, entry)
    settings = {"model_name_or_path": str(tiny_model), "stage": "pt", "packing": True, "cutoff_len": 64}
    payload = build("mine", folder, settings)
    assert payload.cutoff_len == 63 and payload.learned % 63 == 0  # one is left for padding
    assert [row.tokens - row.learned for row in seen(payload)] == [0, 0]
    assert all("packs" in row.note for row in payload.rows)
    assert payload.over_cutoff == 0  # longer texts go on in the next block


def test_a_recipe_gives_model_and_template(registered, tiny_model, capsys, monkeypatch):
    """Each page replaces the one before, and no file of the user."""
    folder = registered(ALPACA, FORMATS["sft"][1])
    monkeypatch.chdir(folder)
    Path("mine-view.html").write_text("mine")
    with raises(RequestError, "--force"):
        call(cli, "view", "mine", "--dataset-dir", folder)
    Path("mine-view.html").unlink()
    call(cli, "view", "mine", "--dataset-dir", folder)
    printed = capsys.readouterr()
    assert "result: mine-view.html" in printed.err and "--model DIR" in printed.err
    recipe = folder / "mine.yaml"
    recipe.write_text(f"model_name_or_path: {tiny_model}\ntemplate: qwen\ncutoff_len: 40\ndataset: mine\n")
    call(cli, "view", "mine", "--recipe", "mine.yaml", "--dataset-dir", folder)
    printed = capsys.readouterr()
    assert "learned" in printed.out and "no tokens" not in printed.err
    assert "next: tuneyard data verify mine --recipe mine.yaml" in printed.err
    recipe.write_text("model_name_or_path: org/model\ndataset: mine\n")
    call(cli, "view", "mine", "--recipe", "mine.yaml", "--dataset-dir", folder)
    assert "org/model" in capsys.readouterr().err
