"""--bos: a model without a chat template, prompted with and without the BOS that its tokenizer adds."""

import shutil
from pathlib import Path

import pytest

from tests.cli import scoring
from tests.cli.scoring import PAIRS, predictions, results
from tests.json_files import write_json
from tests.messages import printed, raises
from tuneyard.core.errors import RequestError
from tuneyard.eval.cmmlu.__main__ import cli as cmmlu
from tuneyard.eval.data.prompts import choose_prompting
from tuneyard.eval.nli import cli as nli

TALK = [{"role": "user", "content": "A dog?"}]


@pytest.fixture(scope="module")
def plain(tiny_model: Path, tmp_path_factory) -> Path:
    """The tiny model without a chat template; its tokenizer adds a BOS."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("plain") / "model")
    (folder / "chat_template.jinja").unlink()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>"})
    begin = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    tokenizer.backend_tokenizer.post_processor = begin
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def score_both(tmp_path: Path):
    """`score(model, *arguments)` runs eval.nli on two sets and returns OUT."""
    for name in ("one", "two"):
        write_json(tmp_path / f"{name}.json", PAIRS)

    def call(model: Path, *arguments: str) -> Path:
        sets = ("--data", tmp_path / "one.json", "--data", tmp_path / "two.json")
        given = ("--model", model, *sets, "--out", tmp_path / "out", *arguments)
        scoring.call(nli, *given)
        return tmp_path / "out"

    return call


def read(out: Path) -> tuple[dict, list[float]]:
    folder = out / "base/one"
    return results(folder), [row["choices"]["yes"] for row in predictions(folder)]


def test_bos_stands_before_the_plain_prompt_and_what_is_trained_on(plain) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(plain)
    without, after = (choose_prompting(tokenizer, [], None, bos=bos) for bos in (False, True))
    ids = tokenizer("A dog?", add_special_tokens=False)["input_ids"]
    assert without.encode(TALK) == ids
    assert after.encode(TALK) == [tokenizer.bos_token_id, *ids] == tokenizer("A dog?")["input_ids"]
    answered = [*TALK, {"role": "assistant", "content": "Yes."}]
    (source, target), *others = after.turns(answered).pairs
    assert (source, target) == ([tokenizer.bos_token_id, *ids], without.turns(answered).pairs[0][1])
    assert not others
    assert after.digest != without.digest


def test_a_run_without_bos_warns_once_and_bos_is_recorded(plain, score_both, capsys) -> None:
    results, before = read(score_both(plain))
    assert capsys.readouterr().err.count("--bos begins prompts with it") == 1
    printed(results["prompt"], "plain text", "no chat template", "without", "BOS")
    with raises(RequestError, "bos"):
        score_both(plain, "--bos", "--resume")
    results, after = read(score_both(plain, "--bos", "--force"))
    assert "--bos" not in capsys.readouterr().err
    assert results["prompt"] == "plain text (no chat template) after BOS"
    assert results["settings"]["bos"] is True
    assert after != before


def test_bos_is_refused_where_it_would_do_nothing(plain, tiny_model, score_both, tmp_path, capsys) -> None:
    with raises(RequestError, "--bos"):
        score_both(tiny_model, "--bos")
    with raises(RequestError, "--bos"):
        score_both(
            Path("m"), "--bos", "--backend", "openai", "--url", "http://localhost:1/v1", "--mode", "generate"
        )
    with raises(RequestError, "--bos", "--chat"):
        scoring.call(cmmlu, "--model", plain, "--bos", "--out", tmp_path / "o")
    bare = shutil.copytree(tiny_model, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    with raises(RequestError, "BOS"):
        score_both(bare, "--bos")
    capsys.readouterr()
    assert read(score_both(bare))[0]["prompt"] == "plain text (no chat template)"
    assert "BOS" not in capsys.readouterr().err
