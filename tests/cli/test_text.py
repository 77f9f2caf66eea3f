"""python -m eval.text on a tiny model, in this process: figures, files, and what it refuses untouched."""

import math
import re
import shutil
from pathlib import Path

import click
import pytest

from testing.tiny import write_adapter
from tests.cli import scoring
from tests.cli.scoring import answer_logp
from tests.json_files import read_json, read_lines, write_json, write_lines
from tests.messages import raises
from tests.runs_cut import tree
from tuneyard.core.errors import ContentError, RequestError
from tuneyard.core.llamafactory.prompt.token_losses import TOKEN_LOSSES, TokenLossFile
from tuneyard.eval.figures.text import percentiles
from tuneyard.eval.models.load import Model
from tuneyard.eval.text import cli

ROWS = [
    {"instruction": "A man is walking a dog.", "input": "Outside?", "output": "yes, he is outside"},
    {"instruction": "任务：根据事件描述判断故障组件。", "input": "", "output": "判断:网络设备 原因：无"},
    {"instruction": "dog " * 60, "input": "", "output": "only one word"},
    {"instruction": "She sings.", "input": "", "output": "no explanation needed here"},
    {"instruction": "Answer maybe.", "input": "", "output": ""},
]
FOUR = ["instruction", "input", "reference", "prediction"]
METRICS = ["eval_loss", "perplexity", "truncation_rate"]
GENERATED = ["empty_rate", "avg_pred_len_tokens", "avg_ref_len_tokens", "len_ratio_pred_over_ref"]
GENERATED += ["distinct-1", "distinct-2"]


pytestmark = pytest.mark.usefixtures("one_thread", "unrendered")


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    write_lines(path, ROWS)
    return path


@pytest.fixture
def text(score, texts):
    """`text(…)` runs the command, on `data` if no other is named, and returns OUT."""

    def call(*arguments: object, generates: bool = True, **changes: object) -> Path:
        short = ["--max-new-tokens", 6] if generates and "--no-generate" not in arguments else []
        named = [] if "--data" in arguments else ["--data", texts]
        return score(cli, *named, *short, *arguments, **changes)

    return call


def read(out: Path, file: str, model="base", name="rows"):
    path = out / model / name / file
    return read_json(path) if path.suffix == ".json" else read_lines(path)


def one_by_one(model: Model, row: dict[str, str]) -> tuple[float, int]:
    """The loss of a row's answer, and its tokens."""
    question = "\n".join(filter(None, (row["instruction"], row["input"])))
    logp, tokens = answer_logp(model, [{"role": "user", "content": question}], row["output"])
    return -logp, tokens


def test_figures_and_warnings_are_chinese_with_lang_zh(text, capsys):
    text("--max-seq-length", "30", "--rouge", "--max-new-tokens", "4", "--lang", "zh")
    printed = capsys.readouterr()
    (line,) = [line for line in printed.out.splitlines() if "eval_loss" in line]
    for figure in ("损失 eval_loss", "困惑度", "个回答", "个 token", "空回答", "按字切分", "行/秒"):
        assert figure in line
    assert not re.search("perplexity|answers|empty|characters|rows/s", line)
    assert "按 --max-seq-length 30 截断" in printed.err


def test_the_loss_is_a_plain_loops_over_all_tokens_together(text, model):
    out = text("--no-generate", "--batch-tokens", "100")
    loop = [one_by_one(model, row) for row in ROWS]
    rows, metrics = read(out, "predictions.jsonl"), read(out, "metrics.json")
    assert [row["loss"] for row in rows] == pytest.approx([loss for loss, _ in loop], abs=1e-5)
    assert [row["tokens"] for row in rows] == [count for _, count in loop]
    mean = sum(loss for loss, _ in loop) / sum(count for _, count in loop)
    assert metrics["eval_loss"] == pytest.approx(mean, abs=1e-5)
    assert metrics["perplexity"] == pytest.approx(math.exp(mean), rel=1e-5)
    assert list(metrics) == METRICS
    known = ["loss", "tokens", "truncated", "example_tokens", "prompt_tokens", "reference_tokens"]
    assert list(rows[0]) == [*FOUR[:3], "row", *known]


def test_metrics_and_predictions_are_those_of_the_document(text, tmp_path, model):
    adapter = write_adapter(tmp_path / "saved")
    out = text("--adapter", f"one={adapter}", "--batch-tokens", "60")
    for name in ("base", "one"):
        rows, metrics = read(out, "predictions.jsonl", name), read(out, "metrics.json", name)
        assert list(metrics) == METRICS + GENERATED
        assert [list(row)[:4] for row in rows] == [FOUR] * 5
        lengths = [len(model.tokenizer(row["prediction"])["input_ids"]) for row in rows]
        assert metrics["avg_pred_len_tokens"] == pytest.approx(sum(lengths) / 5)
        assert metrics["empty_rate"] == sum(not row["prediction"].strip() for row in rows) / 5
        results = read(out, "results.json", name)
        assert (results["n"], results["generated"], results["too_long"]) == (5, 5, 0)
        assert results["estimates"]["eval_loss"]["ci95"][0] < metrics["eval_loss"]
        assert {k: results[k] for k in metrics} == metrics
    assert any(row["prediction"] for row in read(out, "predictions.jsonl", "one"))
    assert read(out, "metrics.json") != read(out, "metrics.json", "one")


def test_lengths_are_told_as_percentiles_and_plotted(text, model):
    out = text("--max_seq_length", "60")
    rows, lengths = read(out, "predictions.jsonl"), read(out, "results.json")["lengths"]
    asked = ["\n".join(filter(None, (row["instruction"], row["input"]))) for row in ROWS]
    prompts = [
        len(
            model.tokenizer.apply_chat_template(
                [{"role": "user", "content": one}], add_generation_prompt=True, return_dict=False
            )
        )
        for one in asked
    ]
    assert [row["prompt_tokens"] for row in rows] == prompts
    whole = [prompt + one_by_one(model, row)[1] for prompt, row in zip(prompts, ROWS, strict=True)]
    assert [row["example_tokens"] for row in rows] == whole  # before the cut at 60
    assert max(whole) > 60
    assert list(lengths) == ["prompt", "reference", "prediction", "example"]
    for name, found in lengths.items():
        assert found == percentiles([row[f"{name}_tokens"] for row in rows])


def test_rows_that_are_too_long_are_cut_as_training_does_and_counted(text, capsys):
    out = text("--no-generate", "--max_seq_length", "60")
    cut = [row["truncated"] for row in read(out, "predictions.jsonl")]
    assert cut[2]
    assert read(out, "metrics.json")["truncation_rate"] == sum(cut) / 5
    assert f"{sum(cut)} of 5 rows cut to --max-seq-length 60" in capsys.readouterr().err


def test_texts_are_read_whole_and_nothing_is_generated(text, tmp_path, model) -> None:
    import torch

    lines = ["A man is walking a dog.", "任务：判断", "yes"]
    path = tmp_path / "rows.json"
    write_json(path, [{"text": line} for line in lines])
    out = text("--data", path, generates=False)
    for row, line in zip(read(out, "predictions.jsonl"), lines, strict=True):
        ids = torch.tensor([model.tokenizer(f"{line}<|im_end|>")["input_ids"]])
        with torch.no_grad():
            mean = model.net(input_ids=ids, labels=ids).loss.item()
        assert row["loss"] == pytest.approx(mean * (ids.shape[1] - 1), abs=1e-4)
        assert (row["reference"], row["instruction"]) == (line, "")
    assert list(read(out, "metrics.json")) == METRICS
    assert read(out, "results.json")["scored"] == "texts"


def test_a_prompt_without_room_for_an_answer_is_read_but_not_asked(text, tmp_path, capsys) -> None:
    path = tmp_path / "rows.json"
    write_json(path, [*ROWS[:2], {"instruction": "dog " * 3000, "output": "yes"}])
    out = text("--data", path)
    last = read(out, "predictions.jsonl")[2]
    assert "a context of 2048" in last["too_long"]
    assert last["truncated"]
    assert "prediction" not in last
    results = read(out, "results.json")
    assert (results["n"], results["generated"], results["too_long"]) == (3, 2, 1)
    assert "no answer was generated" in capsys.readouterr().err


@pytest.mark.parametrize(("context", "length"), [(256, 256), (4096, 2048)])
def test_the_default_length_is_no_more_than_the_models_context(text, tmp_path, tiny_model, context, length):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    config = read_json(model / "config.json")
    write_json(model / "config.json", {**config, "max_position_embeddings": context})
    results = read(text("--no-generate", model=model), "results.json")
    assert results["settings"]["max_seq_length"] == length
    assert results["truncation_rate"] == 0
    whole = tree(tmp_path / "out")
    (tmp_path / "out/base/rows/results.json").unlink()
    text("--no-generate", "--resume", model=model)
    assert tree(tmp_path / "out") == whole


def test_losses_of_tokens_add_up_to_the_loss_of_each_row(text, model):
    out = text("--no-generate", "--token-losses", "--batch-tokens", "100")
    rows = read(out, "predictions.jsonl")
    file = TokenLossFile(out / "base/rows" / TOKEN_LOSSES)
    assert file.rows == [1, 2, 3, 4, 5]
    for number, row in enumerate(rows, 1):
        losses = file.read(number)
        learned = [loss for loss in losses.losses if loss is not None]
        assert len(learned) == row["tokens"] and len(losses.ids) == row["example_tokens"]
        assert sum(learned) == pytest.approx(row["loss"], abs=1e-6 * row["tokens"])
        assert losses.mean == pytest.approx(row["loss"] / row["tokens"], abs=1e-6)
        assert losses.losses[: row["prompt_tokens"]] == [None] * row["prompt_tokens"]
        assert {"ids", "token_losses"} & row.keys() == set()
    answer = file.read(5).ids[rows[4]["prompt_tokens"] :]
    assert model.tokenizer.decode(answer) == "<|im_end|>\n"


def test_losses_of_tokens_are_written_on_request_only(text):
    out = text("--no-generate")
    assert not list(out.rglob(TOKEN_LOSSES))
    with raises(RequestError, "token_losses", "--resume"):
        text("--no-generate", "--token-losses", "--resume")


def test_losses_of_tokens_are_under_the_rows_numbers_in_the_file(text):
    held_out = text("--no-generate", "--token-losses", "--eval-ratio", "0.4", "--seed", "1")
    whole = text("--no-generate", "--token-losses", out="whole")
    some, every = (TokenLossFile(out / "base/rows" / TOKEN_LOSSES) for out in (held_out, whole))
    assert len(some.rows) == 2 and some.rows != [1, 2]
    for row in some.rows:
        assert some.read(row).ids == every.read(row).ids


def test_losses_of_tokens_stay_with_the_run_that_is_rescored(text, texts, tmp_path):
    source = text("--token-losses")
    scoring.call(cli, "--rescore", source, "--data", texts, "--out", tmp_path / "again")
    assert not list((tmp_path / "again").rglob(TOKEN_LOSSES))
    assert read_json(tmp_path / "again/run.json")["settings"]["token_losses"] is False


@pytest.mark.slow  # rouge-score imports nltk, 5 s
def test_overlap_with_the_answers_is_measured_on_request(text):
    out = text("--rouge")
    metrics, results = read(out, "metrics.json"), read(out, "results.json")
    assert list(metrics) == [*METRICS, *GENERATED, "rouge1", "rouge2", "rougeL", "bleu"]
    assert "tok:zh" in results["bleu_signature"]
    assert results["estimates"]["rougeL"]["stderr"] >= 0


def test_weights_that_overflow_stop_the_run(text, tmp_path, refused):
    adapter = write_adapter(tmp_path / "mine", scale=1e19)
    with refused(ContentError, "--dtype fp32"):
        text("--adapter", f"mine={adapter}", "--no-base", "--no-generate")


BAD = {
    "a server": (["--backend", "openai", "--url", "http://x"], RequestError, ""),
    "nothing to compare": (["--rouge", "--no-generate"], RequestError, "--no-generate"),
    "beyond the context": (["--max-seq-length", "4096"], RequestError, "2048 tokens"),
    "a share of all": (["--eval-ratio", "1"], click.BadParameter, "0<x<1"),
    "a share that is no number": (["--eval-ratio", "nan"], click.BadParameter, ""),
    "nothing learned": (["--max-seq-length", "2"], ContentError, "5 rows"),
}


@pytest.mark.parametrize(("arguments", "error", "facts"), BAD.values(), ids=BAD)
def test_bad_requests_leave_nothing(text, refused, arguments, error, facts):
    with refused(error, facts):
        text(*arguments)


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (["--no-generate", "--think"], "--think"),
        (["--no-generate", "--preset", "document"], "--preset"),
        (["--no-generate", "--max-new-tokens", "6"], "--max-new-tokens"),
        (["--seed", "3"], "--seed"),
    ],
)
def test_an_option_without_effect_is_refused(text, refused, words, flag):
    with refused(RequestError, flag):
        text(*words)


@pytest.mark.parametrize("words", [["--max-new-tokens", "6"], ["--think"], ["--rouge"]])
def test_nothing_is_generated_to_plain_texts(text, tmp_path, refused, words) -> None:
    path = tmp_path / "plain.json"
    write_json(path, [{"text": "A dog is an animal."}])
    with refused(RequestError, words[0]):
        text("--data", path, *words, generates=False)
