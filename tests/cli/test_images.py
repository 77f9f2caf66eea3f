"""Rows with images: the ids, pixels and positions of LLaMA-Factory's training, and what is refused."""

import functools
import hashlib
import json
import math
import shutil
from pathlib import Path

import pytest
from PIL import Image

from testing.tiny import make_seeing, write_adapter
from tests.cli import scoring
from tests.json_files import read_json, read_lines, write_json
from tests.messages import raises
from tests.runs_cut import tree
from tests.workers import ElsewhereWorkers, use_workers
from tuneyard.compiler.verify.dataset import load
from tuneyard.core.datasets.compiled import fingerprints
from tuneyard.core.datasets.trained_examples import fingerprints_of, held_out_rows
from tuneyard.core.errors import ContentError, RequestError, TuneyardError
from tuneyard.core.files import sha256
from tuneyard.core.llamafactory.prompt import prompt_and_answer
from tuneyard.eval import nli, preference, text
from tuneyard.eval.compare import __main__ as compare
from tuneyard.eval.models.vision import PIXELS

TEMPLATES = [("qwen2_5_vl", "qwen2_vl"), ("qwen2_vl", "qwen2_vl")]
TEMPLATES += [("qwen3_vl", "qwen3_vl_nothink"), ("qwen3_vl", "qwen3_vl")]
LORA = {
    "model.language_model.layers.0.self_attn.q_proj": (64, 64),
    "model.visual.blocks.0.attn.qkv": (96, 32),
}
ENTRY = {
    "file_name": "seen/rows.json",
    "formatting": "sharegpt",
    "columns": {"messages": "turns", "images": "pictures"},
    "tags": {f"{name}_tag": name for name in ("role", "content", "user", "assistant", "system")},
}


def talk(*turns: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[n % 2], "content": said} for n, said in enumerate(turns)]


SYSTEM = {"role": "system", "content": "Where <image> stands here, training writes no image."}
ROWS = [
    {"turns": talk("<image>Which colour?", "yes", "And <image> this?", "no"), "pictures": ["a.png", "b.png"]},
    {"turns": [SYSTEM, *talk("Is it red?<image>", "no")], "pictures": ["c.jpg"]},
    {"turns": talk("Is there an image?", "yes"), "pictures": []},
]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """`models(kind)` is the folder of a random model that sees."""
    made = {}

    def of(kind: str = "qwen2_5_vl") -> Path:
        if kind not in made:
            made[kind] = make_seeing(tmp_path_factory.mktemp("sees") / kind, weights=True, kind=kind)
        return made[kind]

    return of


@pytest.fixture
def seen_images(working_folder: Path) -> Path:
    """A folder with a registered set and its images (noise) in media/."""
    (working_folder / "media").mkdir()
    for name, size, mode in (
        ("a.png", (90, 60), "RGB"),
        ("b.png", (40, 200), "L"),
        ("c.jpg", (448, 420), "RGB"),
    ):
        Image.effect_noise(size, 90).convert(mode).save(working_folder / "media" / name)
    (working_folder / "dataset_info/seen").mkdir(parents=True)
    write_json(working_folder / "dataset_info/dataset_info.json", {"seen": ENTRY})
    write_json(working_folder / "dataset_info/seen/rows.json", ROWS)
    made_from = {"definition": {"source": {}}, "sources": [{"path": "media/raw.json"}]}
    write_json(working_folder / "dataset_info/seen/manifest.json", {"made_from": made_from})
    return working_folder


def adapter(folder: Path, base: Path, **settings: object) -> Path:
    """Write an adapter on both halves of a model, with the recipe that it was trained by."""
    write_adapter(folder, LORA, base_model_name_or_path=str(base), seed=3)
    write_json(folder / "recipe.yaml", {"template": "qwen2_vl", "media_dir": "media", **settings})
    return folder


def call(module, model: Path, *more: object, template: str | None = "qwen2_vl", out: str = "out") -> Path:
    given = ["--model", model, "--out", out, *more]
    given += ["--template", template] if template else []
    scoring.call(module.cli, *given)
    return Path(out)


def loss(model: Path, *more: object, **named: str) -> Path:
    return call(text, model, "--no-generate", *more, **named)


def read(out: Path, file: str = "predictions.jsonl", name: str = "base", dataset: str = "seen"):
    path = out / name / dataset / file
    return read_json(path) if path.suffix == ".json" else read_lines(path)


def trained(model: Path, cache: Path, **settings: object):
    """What LLaMA-Factory trains on, by its own loader, processor and collator: its collator and features."""
    from llamafactory.data import SFTDataCollatorWith4DAttentionMask
    from llamafactory.data.processor import SupervisedDatasetProcessor
    from transformers import AutoModelForImageTextToText

    net = AutoModelForImageTextToText.from_pretrained(model).eval()
    asked = {"model_name_or_path": str(model), "media_dir": "media", **settings}
    data, loaded = load("seen", Path("dataset_info"), asked, str(cache), 1)
    data = data.with_tokenizer().with_template()
    tokenizer, template, processor = data.module["tokenizer"], data.template, data.module["processor"]
    made = SupervisedDatasetProcessor(template, tokenizer, processor, data.data_args).preprocess_dataset(
        loaded[:]
    )
    rows = [dict(zip(made, values, strict=True)) for values in zip(*made.values(), strict=True)]
    collator = SFTDataCollatorWith4DAttentionMask(
        tokenizer=tokenizer, model=net, template=template, processor=processor
    )
    return net, rows, collator


@pytest.fixture
def passes(monkeypatch) -> list[dict]:
    """What went into every model, pass by pass."""
    from tuneyard.eval.models import load

    seen = []
    loading = load.load_model

    def noting(*given):
        model = loading(*given)
        seen.clear()  # a token that is tried while it is loaded
        model.net.register_forward_pre_hook(lambda _, __, named: seen.append(named), with_kwargs=True)
        return model

    monkeypatch.setattr(load, "load_model", noting)
    return seen


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "template"), TEMPLATES)
def test_what_is_scored_is_what_llamafactory_trains_on(kind, template, models, seen_images, passes) -> None:
    import torch

    Image.effect_noise((800, 760), 90).convert("RGB").save(
        seen_images / "media/c.jpg"
    )  # LLaMA-Factory shrinks it
    out = loss(models(kind), "--dataset", "seen", template=template)
    thinking = {"enable_thinking": False} if template == "qwen3_vl" else {}
    net, rows, collator = trained(models(kind), seen_images / "cache", template=template, **thinking)
    found = {named["input_ids"].shape[1]: named for named in passes}
    for row, line in zip(rows, read(out), strict=True):
        ids, labels = row["input_ids"], row["labels"]
        ours = found[len(ids)]
        assert ours["input_ids"].tolist() == [ids]
        assert line["tokens"] == sum(label != -100 for label in labels)
        images, batch = row["images"], collator([dict(row)])
        for name in ("pixel_values", "image_grid_thw", "position_ids"):
            assert (name in ours) == bool(images)
            assert not images or torch.equal(ours[name], batch[name]), name
        with torch.no_grad():
            theirs = net(**batch).loss.item()
        assert line["loss"] / line["tokens"] == pytest.approx(theirs, abs=1e-4)
    assert [len(row["images"] or []) for row in rows] == [2, 1, 0]


@functools.cache
def loaded(model: Path):
    """The model and the processor as transformers itself loads them."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    return AutoModelForImageTextToText.from_pretrained(model), AutoProcessor.from_pretrained(model)


def plain(model: Path, asked: list[str], images: list[str], answer: str) -> float:
    """The loop: log p of an answer after a prompt by transformers' own processor and model alone."""
    import torch

    net, processor = loaded(model)
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    turns = [said.replace("<image>", mark) for said in asked]
    prompt = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    for n, said in enumerate(turns):
        prompt += f"<|im_start|>{('user', 'assistant')[n % 2]}\n{said}<|im_end|>\n"
    prompt += "<|im_start|>assistant\n"
    files = [Image.open(Path("media") / name).convert("RGB") for name in images]
    inputs = processor(text=[prompt], images=files, return_tensors="pt")
    told = torch.tensor([processor.tokenizer(answer)["input_ids"]])
    count = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], told], 1)
    for name in ("attention_mask", "mm_token_type_ids"):
        inputs[name] = torch.nn.functional.pad(
            inputs[name], (0, told.shape[1]), value=name == "attention_mask"
        )
    labels = inputs["input_ids"].clone()
    labels[:, :count] = -100
    with torch.no_grad():
        return -net(**inputs, labels=labels).loss.item() * told.shape[1]


def test_loss_and_choices_are_those_of_a_plain_loop(models, seen_images) -> None:
    row = {"turns": talk("<image>Which <image>colour?", "no"), "pictures": ["a.png", "b.png"]}
    write_json(seen_images / "dataset_info/seen/rows.json", [row])
    asked = [row["turns"][0]["content"]], row["pictures"]
    (line,) = read(loss(models(), "--dataset", "seen"))
    assert -line["loss"] == pytest.approx(plain(models(), *asked, "no<|im_end|>\n"), abs=1e-4)
    chosen = ["--dataset", "seen", "--choices", "no,maybe", "--variants", "none"]
    (line,) = read(call(nli, models(), *chosen, out="chosen"))
    assert list(line["choices"]) == ["no", "maybe"]
    for label, log in line["choices"].items():
        assert log == pytest.approx(plain(models(), *asked, label), abs=1e-4)
    (all_of_them,) = read(call(nli, models(), *chosen[:4], out="spelled"))
    spelled = [plain(models(), *asked, form) for form in ("maybe", "Maybe", " maybe", " Maybe")]
    assert all_of_them["choices"]["maybe"] == pytest.approx(math.log(sum(map(math.exp, spelled))), abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("apply", ["unmerged", "merged"])
def test_an_adapter_is_scored_as_peft_has_it_with_images_of_its_recipe(models, seen_images, apply) -> None:
    import torch
    from peft import PeftModel

    small = {"image_max_pixels": 4000, "image_min_pixels": 2000}
    saved = adapter(seen_images / "saved", models(), **small)
    out = loss(models(), "--adapter", f"one={saved}", "--dataset", "seen", "--apply", apply)
    net, rows, collator = trained(models(), seen_images / "cache", template="qwen2_vl", **small)
    tuned = PeftModel.from_pretrained(net, saved).eval()
    for row, line in zip(rows, read(out, name="one"), strict=True):
        with torch.no_grad():
            theirs = tuned(**collator([dict(row)])).loss.item()
        assert line["loss"] / line["tokens"] == pytest.approx(theirs, abs=1e-4)
    assert read(out) != read(out, name="one")
    settings = read(out, "results.json", "one")["settings"]
    assert {name: settings[name] for name in small} == small and settings["batch_tokens"] == 1


def test_answers_of_pairs_are_as_probable_as_the_same_answers_alone(models, seen_images) -> None:
    """LLaMA-Factory's own figure for such pairs: tools/stages, stage `dpo with images`."""
    question = talk("<image>Which colour?")
    answers = {"chosen": "red", "rejected": "a blue one"}
    rows = [
        {"turns": talk("<image>Which colour?", answer), "pictures": ["a.png"]} for answer in answers.values()
    ]
    rows_of(seen_images, *rows)
    alone = read(loss(models(), "--dataset", "seen"))
    pair = {side: {"role": "assistant", "content": answer} for side, answer in answers.items()}
    columns = {**ENTRY["columns"], "chosen": "chosen", "rejected": "rejected"}
    entry = {**ENTRY, "ranking": True, "columns": columns}
    rows_of(seen_images, {"turns": question, **pair, "pictures": ["a.png"]}, entry=entry)
    (scored,) = read(call(preference, models(), "--dataset", "seen", out="pairs"))
    for side, row in zip(answers, alone, strict=True):
        assert scored[f"{side}_logp"] == pytest.approx(-row["loss"], abs=1e-4)
        assert scored[f"{side}_tokens"] == row["tokens"]


@pytest.mark.slow
def test_bf16_is_scored_in_bf16(models, seen_images) -> None:
    out = loss(models(), "--dataset", "seen", "--dtype", "bf16")
    whole = read(loss(models(), "--dataset", "seen", out="whole"))
    for line, exact in zip(read(out), whole, strict=True):
        assert line["loss"] != exact["loss"] and line["loss"] == pytest.approx(exact["loss"], rel=0.01)


def test_the_pixels_are_llamafactorys_own() -> None:
    from llamafactory.hparams import ModelArguments

    theirs = ModelArguments(model_name_or_path="none")
    assert {name: getattr(theirs, name) for name in PIXELS} == PIXELS


@pytest.mark.usefixtures("without_plots")
def test_a_run_is_resumed_rescored_compared_and_reported(models, seen_images) -> None:
    saved = adapter(seen_images / "saved", models())
    out = call(nli, models(), "--adapter", f"one={saved}", "--dataset", "seen")
    before = {name: (out / name).read_text() for name in tree(out) if name.endswith("predictions.jsonl")}
    assert [
        json.loads(line)["instruction"] for line in before["base/seen/predictions.jsonl"].splitlines()
    ] == [
        row["turns"][-2]["content"] for row in ROWS
    ]  # as the record has it, without the tokens of its images
    (out / "one/seen/results.json").unlink()
    log = out / "one/seen/predictions.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:1]))
    call(nli, models(), "--adapter", f"one={saved}", "--dataset", "seen", "--resume")
    assert {name: (out / name).read_text() for name in before} == before
    scoring.call(nli.cli, "--rescore", "out", "--choices", "no,yes", "--out", "again")
    assert [list(line["choices"]) for line in read(Path("again"))] == [["no", "yes"]] * 3
    scoring.call(compare.cli, "out", "--out", "compared")
    assert (seen_images / "compared/table.md").is_file() and (seen_images / "compared/report.html").is_file()
    Image.new("RGB", (90, 60)).save(seen_images / "media/a.png")
    with raises(TuneyardError, "--resume"):
        call(nli, models(), "--adapter", f"one={saved}", "--dataset", "seen", "--resume")


@pytest.mark.parametrize(
    ("command", "more"),
    [(nli, []), pytest.param(text, ["--no-generate"], marks=pytest.mark.slow)],
)
def test_workers_in_another_folder_see_the_images_of_one_process(
    models, seen_images, monkeypatch, command, more
) -> None:
    """Images have paths that are relative here, and must lead there all the same."""
    saved = adapter(seen_images / "saved", models())
    given = ["--adapter", f"one={saved}", "--dataset", "seen", *more]
    alone = tree(call(command, models(), *given, out="out"))
    Path("out").rename("alone")
    use_workers(monkeypatch, ElsewhereWorkers(seen_images.parent))
    assert tree(call(command, models(), *given, out="out")) == alone


def test_texts_are_scored_by_a_model_that_sees_in_batches_as_one_by_one(models, seen_images) -> None:
    rows = [{"instruction": f"Is {n} more than {9**n}?", "output": ("yes", "no")[n % 2]} for n in range(6)]
    write_json(seen_images / "texts.json", rows)
    several, single = (
        read(call(nli, models(), "--data", "texts.json", *more, template=None, out=out), dataset="texts")
        for out, more in (("several", []), ("single", ["--batch-tokens", 1]))
    )
    for one, other in zip(several, single, strict=True):
        assert one["choices"] == pytest.approx(other["choices"], abs=1e-4)


def rows_of(home: Path, *rows: dict, entry: dict = ENTRY) -> None:
    write_json(home / "dataset_info/dataset_info.json", {"seen": entry})
    write_json(home / "dataset_info/seen/rows.json", rows)


TOOLS = {**ENTRY, "columns": {**ENTRY["columns"], "tools": "tools", "videos": "videos"}}
ONE = ROWS[1]
CALLS = '[{"name": "f", "description": "", "parameters": {"type": "object", "properties": {}}}]'


@pytest.mark.parametrize(
    ("row", "facts"),
    [
        (
            {"pictures": ["none.png"]},
            "none.png; record 2; dataset_info",
        ),
        ({"pictures": ["data:image/png;base64," + "A" * 5000]}, "record 2; data:image/png"),
        ({"pictures": ["raw.json"]}, "record 2; media/raw.json"),
        ({"pictures": ["cut.png"]}, "record 2; media/cut.png"),
        ({"pictures": []}, "record 2; 1; 0"),
        ({"pictures": ["a.png", "a.png"]}, "record 2; 1; 2"),
        ({"pictures": [{"bytes": "x"}]}, "bytes; x; record 2; pictures"),
        ({"turns": talk("<image><video>?", "no")}, "record 2; 1; 0"),
        ({"turns": talk("<image>?", "<image>")}, "record 2"),
        ({"tools": CALLS}, "record 2"),
        ({"videos": ["a.mp4"]}, "record 2; videos"),
    ],
)
def test_a_row_that_cannot_be_shown_is_refused_by_its_place(models, seen_images, row, facts) -> None:
    (seen_images / "media/raw.json").write_text("{}")
    (seen_images / "media/cut.png").write_bytes((seen_images / "media/a.png").read_bytes()[:2000])
    rows_of(seen_images, {**ONE, "turns": talk("<image>?", "yes")}, {**ONE, **row}, entry=TOOLS)
    before = tree(seen_images)
    for module, more in ((nli, []), (text, ["--no-generate"])):
        with raises(ContentError, facts):
            call(module, models(), "--dataset", "seen", *more)
    assert tree(seen_images) == before


@pytest.mark.parametrize(
    ("module", "more", "facts"),
    [
        (text, [], "eval.text --no-generate; eval.nli --mode"),
        (nli, ["--mode", "generate"], ""),
        (nli, ["--check-generate", 1], ""),
        (nli, ["--shots", 1], "--shots"),
        (nli, ["--batch-tokens", 99], "--batch-tokens"),
        (nli, ["--quantize", 4], "--quantize"),
        (nli, ["--template", ""], "--template qwen2_vl"),
        (nli, ["--template", "", "--adapter", "one=saved"], "--template mimo_vl"),
        (
            nli,
            ["--template", "qwen"],
            "--template qwen; qwen2_5_vl; images; --template qwen2_vl",
        ),
        (nli, ["--template", "llava"], "--template llava; qwen2_5_vl"),
        (nli, ["--model", "TINY"], "qwen2_vl; qwen2_5_vl; qwen3_vl; qwen2"),
        (nli, ["--model", "BARE"], "bare; preprocessor_config.json; processor_config.json"),
        (nli, ["--adapter", "one=saved", "--adapter", "two=small"], ""),
        (nli, ["--adapter", "one=odd"], "image_max_pixels; many; LLaMA-Factory"),
    ],
)
def test_what_does_not_go_with_images_is_refused(
    models, seen_images, tiny_model, module, more, facts
) -> None:
    shutil.copytree(models(), seen_images / "bare")
    (seen_images / "bare/processor_config.json").unlink()
    adapter(seen_images / "saved", models(), template="mimo_vl")
    adapter(seen_images / "small", models(), image_max_pixels=4000)
    adapter(seen_images / "odd", models(), image_max_pixels="many")
    before = tree(seen_images)
    asked = [{"TINY": tiny_model, "BARE": seen_images / "bare"}.get(one, one) for one in more]
    with raises(TuneyardError, facts):
        call(module, models(), "--dataset", "seen", "--template", "qwen2_vl", *asked, template=None)
    assert tree(seen_images) == before


def test_rows_beyond_the_limit_are_not_looked_at(models, seen_images) -> None:
    rows_of(seen_images, ONE, {**ONE, "pictures": ["none.png"]})
    assert len(read(loss(models(), "--dataset", "seen", "--limit", "1"))) == 1


def test_a_link_to_an_image_is_a_file_of_its_own_in_the_hash_of_the_data(models, seen_images) -> None:
    (seen_images / "media/d.png").symlink_to(seen_images / "media/b.png")
    rows_of(seen_images, {**ROWS[0], "pictures": ["b.png", "d.png"]})
    out = loss(models(), "--dataset", "seen")
    files = ("dataset_info/seen/rows.json", "media/b.png", "media/d.png")
    expected = hashlib.sha256(" ".join(sha256(seen_images / file) for file in files).encode()).hexdigest()
    assert read_json(out / "run.json")["datasets"] == {"seen": expected}


def test_held_out_rows_are_named_by_their_place_in_the_file(models, seen_images) -> None:
    last = held_out_rows(10, 0.5, 42)[-1]
    rows_of(seen_images, *[ONE] * last, {**ONE, "pictures": ["none.png"]}, *[ONE] * (9 - last))
    with raises(ContentError, last + 1, "none.png"):
        loss(models(), "--dataset", "seen", "--eval-ratio", "0.5")
    rows_of(seen_images, *[ONE] * 9, ROWS[2])
    assert len(read(loss(models(), "--dataset", "seen", "--eval-ratio", "0.3", "--limit", "2"))) == 2


def test_the_same_text_about_another_image_was_not_trained_on() -> None:
    entry = {"columns": {"prompt": "instruction", "response": "output", "images": "images"}}
    rows = [{"instruction": "<image>?", "output": "a", "images": path} for path in (["a.png"], "b.png")]
    one, other = fingerprints_of([prompt_and_answer(row, entry, "") for row in rows])
    assert one != other and one == fingerprints(["<image>?\x1ea.png"])[0]  # as a compile writes it


def test_images_that_training_would_not_read_or_answer_are_refused(models, seen_images) -> None:
    rows_of(
        seen_images,
        {"instruction": "<image>?", "output": "no", "images": ["a.png"]},
        entry={"file_name": "seen/rows.json"},
    )
    with raises(ContentError, "record 1"):
        loss(models(), "--dataset", "seen")
    rows_of(seen_images, {**ONE, "turns": ONE["turns"][:2]})
    with raises(RequestError, "no answer"):
        loss(models(), "--dataset", "seen")


def test_a_cut_through_an_image_is_refused(models, seen_images) -> None:
    with raises(ContentError, "row 1", "--max-seq-length 200") as error:
        loss(models(), "--dataset", "seen", "--max-seq-length", "200")
    length = int(str(error.value).split(": ")[-1].split()[0])
    assert not read(loss(models(), "--dataset", "seen", "--max-seq-length", str(length)))[1]["truncated"]
