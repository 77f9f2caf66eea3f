"""verify beside the real LLaMA-Factory: its silent traps get a name and a place, its labels are ours."""

import json
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import pytest
from PIL import Image

from testing.tiny import make_seeing
from tests.conftest import ROOT
from tests.json_files import write_json
from tests.messages import printed_line, raises
from tests.real_data import real_path
from tuneyard.compiler.engine.request import CompileRequest
from tuneyard.compiler.inspect.template import seen_by_model
from tuneyard.compiler.publish.compile import compile_dataset
from tuneyard.compiler.spec.file import known_specs
from tuneyard.compiler.spec.load import load_spec
from tuneyard.compiler.verify import dataset, learned
from tuneyard.compiler.verify.dataset import load, verify
from tuneyard.compiler.verify.recipe_file import read_settings
from tuneyard.compiler.verify.report import as_json, lines
from tuneyard.compiler.verify.verdict import Verdict
from tuneyard.core.errors import ContentError
from tuneyard.core.language.message import translated

pytestmark = pytest.mark.slow
COLUMNS = {"prompt": "instruction", "query": "input", "response": "output"}
ROWS = [
    {"instruction": f"Is {n} even?", "input": "", "output": "yes" if n % 2 == 0 else "no"} for n in range(6)
]


class Sets:
    """A dataset_info folder of hand-written entries."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model

    def verify(
        self, content: object, name: str = "a.jsonl", entry: dict | None = None, **settings
    ) -> Verdict:
        """Register rows (or the file's bytes) as the dataset `mine` and verify it."""
        if isinstance(content, list):
            text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
            content = text.encode() if name.endswith("l") else json.dumps(content).encode()
        (self.folder / name).write_bytes(content)
        entry = {"file_name": name, "columns": COLUMNS} if entry is None else entry
        write_json(self.folder / "dataset_info.json", {"mine": entry})
        return verify("mine", self.folder, settings)

    def audit(self, rows: list[dict], entry: dict | None = None, **settings) -> Verdict:
        """Verify with the tiny tokenizer."""
        settings = {"template": "qwen", "model_name_or_path": str(self.model), **settings}
        return self.verify(rows, entry=entry, **settings)


@pytest.fixture(scope="module")
def qwen_model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The tiny model with the default system text of LLaMA-Factory's template `qwen`, which then fits it."""
    folder = tmp_path_factory.mktemp("qwen") / "model"
    shutil.copytree(tiny_model, folder)
    file = folder / "chat_template.jinja"
    plain, qwen = "You are a helpful", "You are Qwen, created by Alibaba Cloud. You are a helpful"
    file.write_text(file.read_text().replace(plain, qwen))
    return folder


@pytest.fixture
def sets(tmp_path: Path, qwen_model: Path) -> Sets:
    return Sets(tmp_path, qwen_model)


def found(verdict: Verdict) -> list[tuple[str, str]]:
    """Return (code, file:line) of every finding but those on the template, in order."""
    problems = [problem for problem in verdict.problems if problem.field != "template"]
    return [(problem.code, problem.place.rsplit("/", 1)[-1]) for problem in problems]


def changed(number: int, **values: object) -> list[dict]:
    """Return the rows with one of them changed (None takes a key away)."""
    return [row if n != number else {**row, **values} for n, row in enumerate(ROWS)]


def test_right_rows_are_all_there_and_what_is_not_checked_is_said(sets):
    verdict = sets.verify(ROWS)
    assert (verdict.records, verdict.loaded, verdict.same) == (6, 6, 6)
    assert not verdict.failed and "give a model folder with --model DIR" in verdict.not_checked[0]
    assert any("mine was not compiled here" in line for line in lines(verdict, every=False))
    assert not as_json(verdict)["compiled"]


def test_a_gpu_is_left_alone(sets, monkeypatch):
    """Here there is none, so that whoever takes it fails."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert sets.verify(ROWS).same == 6


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        (COLUMNS | {"response": "ouput"}, "E403"),
        ({"prompt": "instruction", "query": "input", "reponse": "output"}, "E401"),
        ({"prompt": "instruction"}, "E402"),
    ],
)
def test_wrong_columns(sets, columns, code):
    verdict = sets.verify(ROWS, entry={"file_name": "a.jsonl", "columns": columns})
    assert verdict.failed and code in verdict.counts
    assert verdict.counts["E406"] == 6, "every row is lost, and each has its place"


def test_one_null_answer(sets):
    verdict = sets.verify(changed(2, output=None))
    assert found(verdict) == [("E406", "a.jsonl:3")] and verdict.same == 5


@pytest.mark.parametrize(("value", "cause"), [("7", "numbers"), ("NA", "nothing")])
def test_what_pandas_makes_of_answers_is_named(sets, value, cause):
    """A .csv goes through pandas, which guesses types by values."""
    table = "instruction,output\n" + f"Question?,{value}\n" * 3
    entry = {"file_name": "a.csv", "columns": {"prompt": "instruction", "response": "output"}}
    verdict = sets.verify(table.encode(), "a.csv", entry)
    assert verdict.counts == {"E406": 3} and cause in verdict.problems[0].message


@pytest.mark.parametrize(("column", "value"), [("date", "2023-05-02"), ("end_time", "10:30")])
def test_a_column_of_an_array_whose_name_is_read_as_a_date_is_named(sets, column, value):
    rows = [{"instruction": f"Question {n}?", column: value} for n in range(3)]
    entry = {"file_name": "a.json", "columns": {"prompt": "instruction", "response": column}}
    problems = sets.verify(rows, "a.json", entry).problems
    assert [(problem.code, problem.field) for problem in problems] == [("E430", column)]
    assert "rename the column" in problems[0].hint


def test_answers_that_are_all_dates_are_one_finding_that_names_the_cause(sets):
    rows = [changed(n, output=f"2023-05-{n + 1:02} 10:00")[n] for n in range(6)]
    (problem,) = sets.audit(rows).problems
    assert (problem.code, problem.field) == ("E430", "output") and "timestamp" in problem.message
    assert found(sets.verify(rows, "a.json")) == []


def test_one_number_among_texts(sets):
    verdict = sets.verify(changed(3, output=7))
    assert ("E404", "a.jsonl:4") in found(verdict) and "E405" in verdict.counts


@pytest.mark.parametrize(
    ("split", "rows"), [("train", 10), ("train[:50%]", 5), ("train[-3:]", 3), ("train[:2]+train[-2:]", 4)]
)
def test_the_rows_of_a_part_are_those_that_llamafactory_loads(sets, tmp_path, split, rows):
    entry = {"file_name": "a.jsonl", "columns": COLUMNS, "split": split}
    verdict = sets.verify(ROWS[:1] * 10, entry=entry)
    assert (verdict.records, verdict.trained, found(verdict)) == (10, rows, [])
    data, _ = load("mine", sets.folder, {"stage": "sft"}, str(tmp_path / "cache"), 1)
    assert len(data.rows("mine")) == rows


@pytest.mark.parametrize("split", ["test", "validation", "train[:0]", None])
def test_a_split_at_which_llamafactory_stops(sets, tmp_path, split):
    entry = {"file_name": "a.jsonl", "columns": COLUMNS, "split": split}
    verdict = sets.verify(ROWS[:1] * 10, entry=entry)
    assert [problem.code for problem in verdict.problems] == ["E405"]
    data, _ = load("mine", sets.folder, {"stage": "sft"}, str(tmp_path / "cache"), 1)
    with pytest.raises((ValueError, AttributeError, KeyError, TypeError)):
        data.rows("mine")


def test_a_truncated_array(sets):
    content = "[\n" + ",\n".join(map(json.dumps, ROWS))
    verdict = sets.verify(content[:-5].encode(), "a.json")
    assert ("E003", "a.json:7") in found(verdict) and "E405" in verdict.counts


def test_bad_turns(sets):
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]
    rows = [{"conversations": talk}, {"conversations": talk[:1]}, {"conversations": talk[::-1]}]
    entry = {"file_name": "a.jsonl", "formatting": "sharegpt", "columns": {"messages": "conversations"}}
    verdict = sets.verify(rows, entry=entry)
    assert found(verdict) == [("E406", "a.jsonl:2"), ("E406", "a.jsonl:3")] and verdict.same == 1


def test_an_empty_answer_is_trained_on(sets):
    verdict = sets.audit(changed(4, output=""))
    assert found(verdict) == [("W417", "a.jsonl:5")] and not verdict.failed
    assert verdict.audit.example[-1] == ("yes<|im_end|>\n", True)


def test_cuts_are_counted_with_their_places(sets):
    rows = [*ROWS, {"instruction": "Why?", "input": "", "output": "because " * 60}]
    verdict = sets.audit(rows, cutoff_len=120)
    assert verdict.counts == {"W414": 1, "W415": 1} and found(verdict)[0] == ("W414", "a.jsonl:7")


def test_a_row_of_which_nothing_is_learned(sets):
    verdict = sets.audit(ROWS, cutoff_len=4)
    assert verdict.counts["E411"] == len(ROWS) and found(verdict)[0] == ("E411", "a.jsonl:1")


@pytest.mark.parametrize(
    ("template", "code"),
    [
        ("qwen", ""),
        (None, ""),
        ("llama3", "E325"),
        ("llama2", "W352"),
        ("chatml", "N352"),
    ],
)
def test_a_template_is_judged_as_recipe_check_judges_it(sets, template, code):
    verdict = sets.audit(ROWS, template=template)
    codes = [problem.code for problem in verdict.problems if problem.field == "template"]
    assert codes == ([code] if code else [])
    assert verdict.failed == code.startswith("E")


def test_answers_that_are_all_empty_are_an_error(sets):
    verdict = sets.audit([{**row, "output": " "} for row in ROWS])
    assert verdict.failed and verdict.counts == {"E417": len(ROWS)}


def test_pairs_that_are_all_equal_are_an_error(sets):
    verdict = sets.audit([pair("Yes.", "Yes."), pair("No.", "No.")], entry=PAIRS, stage="dpo")
    assert verdict.failed and verdict.counts == {"E422": 2}


def test_a_cutoff_len_that_cuts_every_row_is_an_error(sets):
    longest = max(sets.audit(ROWS).audit.lengths)
    verdict = sets.audit(ROWS, cutoff_len=longest - 2)
    assert verdict.counts["E353"] == 1
    assert "E353" not in sets.audit(ROWS, cutoff_len=longest).counts


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="one process elsewhere")
def test_several_processes_find_what_one_finds(sets, monkeypatch):
    rows = [*ROWS, *changed(4, output=""), {"instruction": "Why?", "input": "", "output": "because " * 60}]
    settings = {"cutoff_len": 120, "preprocessing_batch_size": 2}
    given = {"template": "qwen", "model_name_or_path": str(sets.model), **settings}
    alone = as_json(sets.audit(rows, **settings))
    monkeypatch.setattr(dataset, "SEVERAL_PAY", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert as_json(sets.audit(rows, **settings)) == alone
    monkeypatch.setattr(dataset, "default_workers", lambda *_: pytest.fail("a number was given"))
    assert as_json(verify("mine", sets.folder, given, workers=3)) == alone
    assert alone["counts"] == {"W414": 1, "W415": 1, "W417": 1} and alone["tokens"]["rows"] == len(rows)


def test_a_killed_process_is_said(sets, monkeypatch):
    monkeypatch.setattr(dataset, "SEVERAL_PAY", 0)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(learned.AnswersAuditor, "audit", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with raises(ContentError, "rows 1 to", "SIGKILL", "too little memory"):
        sets.audit(ROWS)


TEXT = {"file_name": "a.jsonl", "formatting": "alpaca", "columns": {"prompt": "text"}}


def test_one_column_called_text_is_for_pretraining(sets):
    """As LLaMA-Factory registers its own texts; a question alone lacks its answer."""
    entry = {"file_name": "a.jsonl", "columns": {"prompt": "text"}}
    verdict = sets.verify([{"text": "One."}, {"text": "Two."}], entry=entry)
    assert (verdict.stage, verdict.same, verdict.failed) == ("pt", 2, False)


@pytest.mark.parametrize("packing", [True, False])
def test_texts_for_pretraining(sets, tiny_model, packing):
    """Stage pt by hand: packed, every batch gives whole blocks and drops the rest; unpacked, rows are cut."""
    from transformers import AutoTokenizer

    rows = [{"text": "one two three " * (n + 1)} for n in range(8)]
    verdict = sets.audit(rows, TEXT, stage="pt", cutoff_len=16, packing=packing, template="default")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    lengths = [len(tokenizer(row["text"] + tokenizer.eos_token)["input_ids"]) for row in rows]
    assert sorted(verdict.audit.lengths.elements()) == sorted(lengths) and not verdict.failed
    if packing:  # LLaMA-Factory takes one token off cutoff_len where packing is asked for
        assert verdict.audit.blocks == sum(lengths) // 15 and verdict.audit.seen == verdict.audit.blocks * 15
        assert not verdict.counts and f"{sum(lengths) % 15} left over" in "\n".join(lines(verdict, False))
    else:
        assert verdict.audit.seen == sum(min(length, 16) for length in lengths)
        assert verdict.counts == {"W419": sum(length > 16 for length in lengths)}


def test_texts_that_fill_no_block_are_an_error(sets):
    """LLaMA-Factory stops with "Cannot find sufficient samples"; of unpacked texts each is trained."""
    rows = [{"text": "one two three"} for _ in range(4)]
    settings = {"stage": "pt", "cutoff_len": 512, "template": "default"}
    verdict = sets.audit(rows, TEXT, packing=True, **settings)
    assert verdict.counts == {"E411": 1} and verdict.problems[0].field == "cutoff_len"
    assert not sets.audit(rows, TEXT, packing=False, **settings).failed


@pytest.mark.parametrize("template", ["qwen", "qwen3", "llama3", "alpaca", "default"])
def test_show_writes_what_a_tokenizer_would_give_back(sets, template, monkeypatch):
    """show --template beside the audit's first row, decoded from LLaMA-Factory's own labels."""
    from llamafactory.data.template import TEMPLATES, ReasoningTemplate

    row = {"instruction": "Is 2 even?", "input": "Say.", "output": "yes"}
    verdict = sets.audit([row], template=template)
    shared = TEMPLATES[template]
    if isinstance(shared, ReasoningTemplate):
        # As a training in this process may have left the template that all share.
        monkeypatch.setattr(shared, "enable_thinking", False)
    shown = seen_by_model(row, {"columns": COLUMNS}, template)
    learned = "".join(text for text, is_learned in verdict.audit.example if is_learned)
    every = "".join(text for text, _ in verdict.audit.example)
    plain = shown.replace("<eos>", "<|im_end|>" if "<|im_end|>" in every else "<|endoftext|>")
    assert plain.replace("<bos>", "").replace("⟦", "").replace("⟧", "") == every
    assert plain.split("⟦")[1].split("⟧")[0] == learned


SPECS = {
    output.dataset_of(split): spec.name
    for spec in map(load_spec, known_specs())
    for output in spec.outputs
    if output.dataset
    for split in spec.splits
}
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize(
    "recipe", [one for one in RECIPES if one.stem != "vl-lora"], ids=lambda path: path.stem
)
def test_what_our_recipes_train_on(recipe, tiny_model, tmp_path):
    """Each recipe's stage, template, packing and cutoff_len on examples of its datasets."""
    settings, _ = read_settings(recipe, {"model_name_or_path": str(tiny_model)})
    if settings.get("packing"):
        settings["cutoff_len"] = 16  # the examples are a few short texts, which fill no block of 1,024
    for name in str(settings["dataset"]).split(","):
        spec = load_spec(SPECS[name])  # here: its paths are found from the current folder
        files = sorted((ROOT / "tests/examples/good" / spec.name).glob("*"))  # none: bundled samples
        sources = tuple(f"{file.stem}={file}" if spec.mix else str(file) for file in files)
        report = compile_dataset(CompileRequest(spec, sources=sources, out=tmp_path))
        verdict = verify(name, tmp_path, settings)
        assert not verdict.failed and not verdict.not_checked, verdict.problems
        assert verdict.stage == settings["stage"] and verdict.packing == bool(settings.get("packing"))
        assert verdict.same == verdict.loaded == verdict.audit.rows == report.datasets[name]
        assert verdict.audit.learned


@pytest.mark.parametrize("masked", [False, True])
def test_earlier_turns_of_alpaca_are_loaded_and_learned(tiny_model, tmp_path, masked):
    """The first row's answers before the last are learned too, but where `mask_history` leaves them out."""
    source = str(ROOT / "tests/examples/good/alpaca/alpaca.json")
    report = compile_dataset(CompileRequest(load_spec("alpaca"), sources=(source,), out=tmp_path))
    settings = {"template": "qwen", "model_name_or_path": str(tiny_model), "mask_history": masked}
    verdict = verify("alpaca", tmp_path, settings)
    assert not verdict.failed and verdict.same == verdict.loaded == report.datasets["alpaca"] == 4
    learned = "".join(text for text, is_learned in verdict.audit.example if is_learned)
    assert [answer in learned for answer in ("In town.", "Till six.")] == [not masked] * 2
    assert "We go home." in learned and "Where are we?" not in learned


TOOLS = json.dumps(
    [{"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}]
)
WITH_TOOLS = {
    "file_name": "a.jsonl",
    "formatting": "sharegpt",
    "columns": {"messages": "conversations", "tools": "tools"},
}


def talk(call: str, tools: str = TOOLS, answer: str = "It is 5.") -> dict:
    turns = [("human", "Sum."), ("function_call", call), ("observation", "5"), ("gpt", answer)]
    return {"conversations": [{"from": role, "value": said} for role, said in turns], "tools": tools}


def test_calls_are_learned_with_what_stands_before_them_and_results_are_masked(sets):
    call = '{"name": "add", "arguments": {"a": 5}}'
    before = "<think>\nAdd.\n</think>\n\nI add."
    verdict = sets.audit([talk(f"{before}\n<tool_call>[{call}, {call}]</tool_call>")], entry=WITH_TOOLS)
    written = f"<tool_call>\n{call}\n</tool_call>"
    learned = [text for text, is_learned in verdict.audit.example if is_learned]
    assert learned == [f"{before}\n{written}\n{written}<|im_end|>\n", "It is 5.<|im_end|>\n"]
    assert not verdict.failed
    printed_line("\n".join(lines(verdict, every=False)), "turns", "1 answers", "1 calls", "1 results")


@pytest.mark.parametrize(
    ("settings", "turns", "learned"),
    [
        ({}, {"thought": 1, "removed": 0, "empty": 1}, ["<think>\nAdd.", "<think>\n\n</think>"]),
        ({"enable_thinking": False}, {"thought": 0, "removed": 1, "empty": 2}, ["<tool_call>", "It is 5."]),
        ({"mask_history": True}, {"thought": 0, "removed": 0, "empty": 1}, ["<think>\n\n</think>"]),
    ],
)
def test_reasoning_is_learned_or_removed_as_the_recipe_has_it(sets, settings, turns, learned):
    row = talk('<think>\nAdd.\n</think>\n\n{"name": "add", "arguments": {"a": 5}}')
    verdict = sets.audit([row], entry=WITH_TOOLS, template="qwen3", **settings)
    assert {name: verdict.audit.turns[name] for name in turns} == turns
    texts = [text for text, is_learned in verdict.audit.example if is_learned]
    assert len(texts) == len(learned) and all(map(str.startswith, texts, learned))


@pytest.mark.parametrize("enabled", [True, False])
def test_a_thought_in_another_form_is_named(sets, enabled):
    call = '{"name": "add", "arguments": {"a": 5}}'
    rows = [
        talk(call, answer=f"{thought}It is 5.")
        for thought in ("<think>\nA\n</think>\n\n", "<think>A</think>")
    ]
    verdict = sets.audit(rows, entry=WITH_TOOLS, template="qwen3", enable_thinking=enabled)
    assert found(verdict) == [("W421", "a.jsonl:2")]
    assert "W421" not in sets.audit(rows, entry=WITH_TOOLS, template="qwen").counts


def test_a_row_that_the_template_cannot_write_is_named(sets):
    rows = [
        talk('{"name": "add", "arguments": {}}'),
        talk('{"name": "f", "arguments": {}}', '[{"name": "f"}]'),
    ]
    rows.append(talk("no JSON"))
    verdict = sets.audit(rows, entry=WITH_TOOLS, template="vicuna")
    assert found(verdict) == [("E420", "a.jsonl:2"), ("E420", "a.jsonl:3")]
    assert verdict.audit.rows == 1
    with raises(ContentError, "vicuna"):
        seen_by_model(rows[1], WITH_TOOLS, "vicuna")


@pytest.mark.parametrize(("language", "calls", "results"), [("en", 211, 211), ("zh", 216, 216)])
def test_llamafactorys_own_tool_data(sets, tmp_path, language, calls, results):
    source = real_path(f"lf/data/glaive_toolcall_{language}_demo.json")
    request = CompileRequest(load_spec("messages"), sources=(str(source),), out=tmp_path / "out", reject=True)
    report = compile_dataset(request)
    assert (report.read, report.rejected) == (300, 0 if language == "en" else 2)
    settings = {"template": "qwen", "model_name_or_path": str(sets.model), "cutoff_len": 1 << 14}
    verdict = verify("messages", tmp_path / "out", settings)
    assert verdict.loaded == verdict.same == report.kept and not verdict.failed
    assert (verdict.audit.turns["function"], verdict.audit.turns["observation"]) == (calls, results)


def test_images_go_through_the_models_own_processor(tmp_path):
    folder = tmp_path / "source"
    shutil.copytree(ROOT / "tests/examples/good/media", folder)
    rows = (folder / "a.jsonl").read_text().splitlines()[:3]  # the others have videos and audios
    (folder / "a.jsonl").write_text("\n".join(rows))
    request = CompileRequest(load_spec("media"), sources=(str(folder / "a.jsonl"),), out=tmp_path / "out")
    compile_dataset(request)
    model = make_seeing(tmp_path / "sees")
    settings, _ = read_settings(ROOT / "recipes/vl-lora.yaml", {"model_name_or_path": str(model)})
    del settings["media_dir"]  # the folder of the compile
    verdict = verify("media", tmp_path / "out", settings)
    assert (verdict.loaded, verdict.same, verdict.audit.rows) == (3, 3, 3)
    assert not verdict.failed and not verdict.not_checked
    shown = "\n".join(lines(verdict, every=False))
    assert re.search(r"<\|vision_start\|><\|image_pad\|> × \d+ <\|vision_end\|>", shown)
    pads = "".join(text for text, _ in verdict.audit.example).count("<|image_pad|>")
    assert sum(map(int, re.findall(r"<\|image_pad\|> × (\d+)", shown))) == pads
    (folder / "images/red.png").write_bytes(b"no image")
    broken = verify("media", tmp_path / "out", settings)
    assert [code for code, _ in found(broken)] == ["E423", "E423"] and broken.audit.rows == 1


@pytest.fixture(scope="module")
def seeing_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_seeing(tmp_path_factory.mktemp("seeing") / "model")


@pytest.mark.parametrize(
    ("kind", "media", "is_trained"),
    [
        ("images", ["a.png"], True),
        ("images", ["a.png", "a.png"], False),
        ("images", [{"bytes": None, "path": "PICTURE"}], True),
        ("images", {"bytes": None, "path": "PICTURE"}, True),
        ("images", [{"path": "PICTURE"}], False),
        ("images", [{"bytes": "aGVsbG8=", "path": None}], False),
        ("images", [["a.png"]], False),
        ("images", [5], False),
        ("videos", [["a.png", "a.png"]], True),
        ("videos", [["a.png", "gone.png"]], False),
        ("videos", [{"path": "a.mp4"}], False),
    ],
)
def test_media_that_are_no_paths_are_judged_as_llamafactory_judges_them(
    sets, seeing_model, kind, media, is_trained
):
    """E423 is LLaMA-Factory's own processor, E408 what is found without a model."""
    Image.new("RGB", (32, 32), "red").save(sets.folder / "a.png")
    media = json.loads(json.dumps(media).replace("PICTURE", str(sets.folder / "a.png")))
    row = {"instruction": f"<{kind.removesuffix('s')}>q", "input": "", "output": "a", kind: media}
    entry = {"file_name": "a.jsonl", "columns": {**COLUMNS, kind: kind}}
    settings = {"template": "qwen2_vl", "media_dir": str(sets.folder)}
    without = sets.verify([row], entry=entry, **settings)
    verdict = sets.verify([row], entry=entry, model_name_or_path=str(seeing_model), **settings)
    assert [problem.code for problem in without.problems] == ([] if is_trained else ["E408"])
    assert {code for code, _ in found(verdict)} == (set() if is_trained else {"E408", "E423"})


@pytest.mark.parametrize("template", ["qwen2_vl", "qwen3_5", "gemma3"])
def test_a_missing_processor_is_named_as_the_cause(sets, template):
    """LLaMA-Factory: "Processor was not found". The rows have neither media nor tools."""
    verdict = sets.audit(ROWS, template=template)
    (problem,) = [
        problem for problem in verdict.problems if problem.code[0] == "E" and problem.code != "E325"
    ]
    assert (problem.code, problem.field) == ("E423", "template")
    assert template in problem.message and "Processor was not found" in problem.message


def test_texts_of_a_model_that_sees_are_learned(sets, seeing_model):
    verdict = sets.audit(ROWS, template="qwen2_vl", model_name_or_path=str(seeing_model))
    assert (found(verdict), verdict.audit.rows) == ([], len(ROWS))
    assert verdict.audit.turns["assistant"] == len(ROWS)


PAIRS = {
    "file_name": "a.jsonl",
    "ranking": True,
    "columns": {"prompt": "instruction", "chosen": "chosen", "rejected": "rejected"},
}
MARKS = {"file_name": "a.jsonl", "columns": COLUMNS | {"kto_tag": "good"}}


def pair(chosen: str, rejected: str) -> dict:
    return {"instruction": "Is 7 even?", "chosen": chosen, "rejected": rejected}


def tokens(model: Path, text: str) -> int:
    from transformers import AutoTokenizer

    return len(AutoTokenizer.from_pretrained(model)(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("stage", ["rm", "dpo"])
def test_what_is_learned_of_both_sides_of_a_pair(sets, stage):
    verdict = sets.audit([pair("No.", "Yes, of course it is.")], entry=PAIRS, stage=stage)
    model = sets.model
    answers = [tokens(model, f"{text}<|im_end|>\n") for text in ("No.", "Yes, of course it is.")]
    asked = tokens(model, seen_by_model(pair("a", "b"), PAIRS, "qwen").split("\nchosen:")[0])
    assert verdict.audit.learned == sum(answers)
    assert verdict.audit.seen == 2 * asked + sum(answers)
    assert verdict.audit.lengths == {asked + max(answers): 1}
    assert not verdict.counts and not verdict.not_checked
    assert verdict.audit.example[1] == ("No.<|im_end|>\n", True)
    shown = list(lines(verdict, every=False))[-1]
    assert translated(shown) == "⟦Yes, of course it is.<|im_end|>\n⟧"
    assert as_json(verdict)["rejected"] == ["Yes, of course it is.<|im_end|>\n"]


def test_what_cutoff_len_takes_of_pairs(sets):
    rows = [pair("No.", "Yes."), pair("No " * 400, "No " * 399 + "yes"), pair("", "Yes.")]
    verdict = sets.audit(rows, entry=PAIRS, stage="dpo", cutoff_len=256)
    assert found(verdict) == [
        ("W414", "a.jsonl:2"),
        ("W415", "a.jsonl:2"),
        ("W417", "a.jsonl:3"),
        ("W422", "a.jsonl:2"),
    ]
    assert verdict.audit.rows == 3 and not verdict.failed


def test_a_pair_whose_tools_the_template_cannot_write(sets):
    rows = [pair("No.", "Yes.") | {"tools": tools} for tools in (TOOLS, '[{"name": "f"}]')]
    entry = PAIRS | {"columns": PAIRS["columns"] | {"tools": "tools"}}
    verdict = sets.audit(rows, entry=entry, template="vicuna")
    assert found(verdict) == [("E420", "a.jsonl:2")] and verdict.audit.rows == 1


def test_what_is_learned_of_marked_answers(sets):
    rows = [{**ROWS[0], "good": True}, {**ROWS[1], "good": False}, {**ROWS[1], "output": "", "good": False}]
    verdict = sets.audit(rows, entry=MARKS)
    assert (verdict.stage, verdict.audit.rows) == ("kto", 3)
    assert found(verdict) == [("W417", "a.jsonl:3")]
    ends = [tokens(sets.model, f"{text}<|im_end|>\n") for text in ("yes", "no", "")]
    assert verdict.audit.learned == sum(ends)


def test_show_writes_the_prompt_once_and_both_answers():
    shown = seen_by_model(pair("No.", "Yes."), PAIRS, "qwen").splitlines()
    assert shown[-6:] == [
        "<|im_start|>assistant",
        "",
        "chosen: ⟦No.<|im_end|>",
        "⟧",
        "rejected: ⟦Yes.<|im_end|>",
        "⟧",
    ]
    marked = seen_by_model({**ROWS[1], "good": False}, MARKS, "qwen")
    assert marked.endswith("\nundesirable: ⟦no<|im_end|>\n⟧") and "chosen" not in marked
