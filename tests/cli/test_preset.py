"""Sampled answers: --preset document as the model ships, --temperature and --top-p as the user says."""

from pathlib import Path

import click
import pytest

from tests.cli import scoring
from tests.cli.scoring import predictions
from tests.json_files import read_json, write_json
from tests.messages import printed_line, raises
from tuneyard.core.errors import RequestError
from tuneyard.eval.nli import cli as nli
from tuneyard.eval.qa.__main__ import cli as qa

ROWS = [{"question": f"{n} + 1?", "answer": "yes" if n % 2 else "no"} for n in range(5)]


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    path = tmp_path / "asked.json"
    write_json(path, ROWS)
    return path


@pytest.fixture
def sampler(sampling_model) -> Path:
    return sampling_model(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05)


def call(command: click.Command, *given: object) -> Path:
    scoring.call(command, *given)
    return Path(str(given[given.index("--out") + 1]))


def results(out: Path) -> dict:
    return read_json(out / "base/asked/results.json")


def answers(out: Path) -> list[str]:
    return [row["model_output"] for row in predictions(out / "base/asked")]


def test_answers_are_sampled_alike_whatever_stands_beside_them(
    sampler: Path, asked: Path, tmp_path: Path
) -> None:
    given = [qa, "--model", sampler, "--data", asked, "--preset", "document", "--max-new-tokens", 8]
    first, second, greedy = (tmp_path / name for name in ("first", "second", "greedy"))
    call(*given, "--out", first)
    call(*given, "--out", second, "--limit", 3, "--batch-tokens", 4000)
    call(qa, "--model", sampler, "--data", asked, "--max-new-tokens", 8, "--out", greedy)
    assert answers(first)[:3] == answers(second)
    assert answers(first) != answers(greedy)
    settings = results(first)["settings"]
    assert (settings["preset"], settings["max_new_tokens"]) == ("document", 8)
    drawn = {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05}
    assert settings["sampling"] == drawn
    assert "sampling" not in results(greedy)["settings"]


def test_the_documents_length_goes_before_the_commands(sampling_model, asked: Path, tmp_path: Path) -> None:
    model = sampling_model(temperature=0.7, eos_token_id=[*range(1024)])  # ends with its first token
    given = ["--model", model, "--data", asked, "--mode", "generate", "--limit", 1, "--preset", "document"]
    out = call(nli, *given, "--out", tmp_path / "out")
    assert results(out)["settings"]["max_new_tokens"] == 512
    with raises(RequestError, "settings preset"):
        call(nli, *given[:-2], "--max-new-tokens", 512, "--out", out, "--resume")


def test_a_model_that_does_not_sample_is_told(tiny_model: Path, asked: Path, tmp_path: Path, capsys) -> None:
    given = ["--model", tiny_model, "--data", asked, "--max-new-tokens", 4, "--preset", "document"]
    call(qa, *given, "--out", tmp_path / "out")
    printed_line(capsys.readouterr().err, "warning", "--preset", "generation_config")


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--mode", "choice"], "--preset; --mode"),
        (["--backend", "openai", "--mode", "generate"], "--backend"),
    ],
)
def test_where_nothing_can_be_sampled_it_is_refused(
    asked: Path, tmp_path: Path, refused, arguments, facts
) -> None:
    given = ["--model", "no/such", "--data", asked, "--preset", "document", *arguments]
    with refused(RequestError, facts):
        call(nli, *given, "--out", tmp_path / "out")


def test_each_seed_draws_other_answers_and_no_resumed_run_mixes_them(
    sampler: Path, asked: Path, tmp_path: Path
) -> None:
    given = [qa, "--model", sampler, "--data", asked, "--preset", "document", "--max-new-tokens", 12]
    plain, second, again = (tmp_path / name for name in ("plain", "second", "again"))
    call(*given, "--out", plain)
    call(*given, "--seed", 2, "--out", second)
    call(*given, "--seed", 2, "--out", again)
    assert answers(plain) != answers(second) == answers(again)
    assert results(second)["settings"]["seed"] == 2
    with raises(RequestError, "seed", 2, 3):
        call(*given, "--seed", 3, "--out", second, "--resume")


@pytest.mark.parametrize("mode", [[], ["--mode", "generate"]])
def test_a_seed_of_nothing_that_is_sampled_is_refused(
    sampler: Path, asked: Path, tmp_path: Path, refused, mode
) -> None:
    with refused(RequestError, "--seed", "--preset"):
        call(nli, "--model", sampler, "--data", asked, "--seed", 2, "--out", tmp_path / "out", *mode)


def test_a_temperature_samples_from_the_models_distribution_alone(
    sampler: Path, asked: Path, tmp_path: Path
) -> None:
    """None of the generation_config's other settings (top_k, a penalty) has a part in it."""
    given = [qa, "--model", sampler, "--data", asked, "--max-new-tokens", 12]
    warm, seeded, again, tight, greedy, cold, preset = (tmp_path / str(number) for number in range(7))
    call(*given, "--temperature", 0.7, "--top-p", 0.9, "--out", warm)
    call(*given, "--temperature", 0.7, "--top-p", 0.9, "--seed", 1, "--out", seeded)
    call(*given, "--temperature", 0.7, "--top-p", 0.9, "--seed", 1, "--batch-tokens", 4000, "--out", again)
    call(*given, "--temperature", 0.7, "--top-p", 1e-6, "--out", tight)
    call(*given, "--out", greedy)
    call(*given, "--temperature", 0, "--out", cold)
    call(*given, "--preset", "document", "--temperature", 0.5, "--out", preset)
    assert results(warm)["settings"]["sampling"] == {"top_k": 0, "temperature": 0.7, "top_p": 0.9}
    assert results(preset)["settings"]["sampling"] == {
        "temperature": 0.5, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05,
    }  # fmt: skip
    assert len({tuple(answers(out)) for out in (warm, seeded, greedy, preset)}) == 4
    assert answers(seeded) == answers(again)
    assert answers(tight) == answers(greedy) == answers(cold)  # the most likely token alone is left
    assert "sampling" not in results(cold)["settings"]
    with raises(RequestError, "sampling", 0.7, 0.6):
        call(*given, "--temperature", 0.6, "--top-p", 0.9, "--out", warm, "--resume")


def test_a_temperature_draws_from_the_likely_tokens_alone(sampling_model, tmp_path: Path) -> None:
    """The first tokens of 60 draws are among those that a softmax by hand keeps."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, path = sampling_model(do_sample=False), tmp_path / "asked.json"
    prompts = [f"Is it {n}?" for n in range(60)]
    write_json(path, [{"question": prompt, "answer": "yes"} for prompt in prompts])
    given = [qa, "--model", model, "--data", path, "--max-new-tokens", 1, "--temperature", 0.3]
    out = call(*given, "--top-p", 0.2, "--out", tmp_path / "out")
    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    places = []
    for prompt, answer in zip(prompts, answers(out), strict=True):
        talk = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_dict=False)
        with torch.no_grad():
            logits = network(torch.tensor([ids])).logits[0, -1].double()
        shares, tokens = torch.softmax(logits / 0.3, 0).sort(descending=True)
        kept = tokens[: int((shares.cumsum(0) < 0.2).sum()) + 1].tolist()
        texts = [tokenizer.decode([token], skip_special_tokens=True) for token in kept]
        assert answer in texts
        places.append(texts.index(answer))
    assert max(places) > 5


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        (["--top-p", "0.9"], "--top-p 0.9; --temperature"),
        (["--top-p", "0.9", "--temperature", "0"], "--top-p 0.9; --temperature"),
        (["--seed", "2", "--temperature", "0"], "--seed; --preset"),
    ],
)
def test_settings_of_greedy_answers_are_refused(
    asked: Path, tmp_path: Path, refused, arguments, facts
) -> None:
    given = ["--model", "no/such", "--data", asked, *arguments]
    with refused(RequestError, facts):
        call(qa, *given, "--out", tmp_path / "out")


@pytest.mark.parametrize("value", ["nan", "-0.1", "inf", "hot"])
def test_a_temperature_is_a_number_from_0_on(asked: Path, tmp_path: Path, value: str) -> None:
    with pytest.raises(click.BadParameter):
        call(qa, "--model", "no/such", "--data", asked, "--temperature", value, "--out", tmp_path / "out")
