"""A merged adapter and a fused model have the tokenizer, template and ends with which the sum is scored."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from testing.tiny import CHATML, SHAPES, make_tiny, write_adapter
from tests.json_files import read_json, write_json
from tests.messages import printed
from tuneyard.adapters.__main__ import cli as adapters
from tuneyard.core.llamafactory.prompt import find_chat_template
from tuneyard.core.llamafactory.prompt.trained_files import read_trained

OTHER = CHATML.replace("assistant\\n", "helper\\n")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that ends at <|endoftext|> (id 0)."""
    folder = make_tiny(tmp_path_factory.mktemp("bases") / "base", vocab_size=1024)
    for name in ("config.json", "generation_config.json"):
        write_json(folder / name, {**read_json(folder / name), "eos_token_id": 0})
    change(folder, eos_token="<|endoftext|>")
    return folder


@pytest.fixture
def parts(base: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two adapters whose trainings saved the same tokenizer, which ends at <|im_end|> (id 2)."""
    folders = []
    for seed, name in enumerate("ab"):
        folder = write_adapter(tmp_path / name, seed=seed, target_modules=sorted(SHAPES))
        for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(base / file, folder)
        change(folder, eos_token="<|im_end|>")
        folders.append(folder)
    return folders[0], folders[1]


def change(folder: Path, **fields: object) -> None:
    file = folder / "tokenizer_config.json"
    write_json(file, {**read_json(file), **fields})


def notes(*words: object) -> str:
    """The notes of a command that succeeds."""
    done = CliRunner().invoke(adapters, list(map(str, words)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stderr


def made(command: str, parts: tuple[Path, Path], base: Path, out: Path) -> str:
    words = [f"{folder}=0.5" for folder in parts]
    if command == "fuse":
        words += ["--base", base, "--same-base"]
    return notes(command, *words, "--out", out)


both = pytest.mark.parametrize("command", ["merge", "fuse"])


@both
@pytest.mark.parametrize(
    "field", [{"padding_side": "left"}, {"model_max_length": 99}, {"mine": [1]}, {"clean_up": True}]
)
def test_settings_that_differ_are_named_and_those_of_the_first_are_carried(
    command, base, parts, tmp_path, field
) -> None:
    change(parts[1], **field)
    printed(made(command, parts, base, tmp_path / "x"), parts[0], parts[1], "tokenizer_config.json", *field)
    written = read_json(tmp_path / "x/tokenizer_config.json")
    assert written == read_json(parts[0] / "tokenizer_config.json")
    assert (tmp_path / "x/tokenizer.json").read_bytes() == (parts[0] / "tokenizer.json").read_bytes()
    assert find_chat_template(tmp_path / "x").text == CHATML
    assert set(read_trained(tmp_path / "x", base).ends) == {0, 2}


@both
def test_ends_of_all_parts_are_kept(command, base, parts, tmp_path) -> None:
    change(parts[1], eos_token="a")
    made(command, parts, base, tmp_path / "x")
    (number,) = [number for text, number in read_trained(base).ids.items() if text == "a"]
    assert set(read_trained(tmp_path / "x", base).ends) == {0, 2, number}


@both
def test_tokens_with_other_ids_are_named_and_no_tokenizer_is_carried(command, base, parts, tmp_path) -> None:
    fields = read_json(parts[1] / "tokenizer.json")
    extra = {**fields["added_tokens"][0], "id": 999, "content": "<call>"}
    write_json(parts[1] / "tokenizer.json", {**fields, "added_tokens": [*fields["added_tokens"], extra]})
    printed(made(command, parts, base, tmp_path / "x"), *parts, "<call>", 999, None)
    if command == "merge":
        assert not (tmp_path / "x/tokenizer.json").exists()
    else:
        assert (tmp_path / "x/tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()


@both
@pytest.mark.parametrize("where", ["chat_template.jinja", "tokenizer_config.json"])
def test_templates_that_differ_are_not_carried(command, base, parts, tmp_path, where) -> None:
    for folder, text in zip(parts, ("one", "two"), strict=True):
        (folder / "chat_template.jinja").unlink()
        if where == "chat_template.jinja":
            (folder / where).write_text(text)
        else:
            change(folder, chat_template=text)
    printed(made(command, parts, base, tmp_path / "x"), "chat_template.jinja")
    saved = find_chat_template(tmp_path / "x")
    assert (saved.text if saved else None) == (None if command == "merge" else CHATML)
    assert read_json(tmp_path / "x/tokenizer_config.json")["eos_token"] == "<|im_end|>"


@both
def test_a_template_in_two_places_is_one(command, base, parts, tmp_path) -> None:
    (parts[0] / "chat_template.jinja").write_text(OTHER)
    (parts[1] / "chat_template.jinja").unlink()
    change(parts[1], chat_template=OTHER)
    assert "chat_template" not in made(command, parts, base, tmp_path / "x")
    assert find_chat_template(tmp_path / "x").text == OTHER


def test_settings_alone_change_the_bases_in_a_fused_model(base, parts, tmp_path) -> None:
    for folder in parts:
        for file in ("tokenizer.json", "chat_template.jinja"):
            (folder / file).unlink()
        write_json(folder / "tokenizer_config.json", {"eos_token": "<|im_end|>"})
    own_base = tmp_path / "base"
    shutil.copytree(base, own_base)
    (own_base / "chat_template.jinja").unlink()
    change(own_base, chat_template=OTHER)
    made("fuse", parts, own_base, tmp_path / "x")
    expected = {**read_json(own_base / "tokenizer_config.json"), "eos_token": "<|im_end|>"}
    assert read_json(tmp_path / "x/tokenizer_config.json") == expected
    assert find_chat_template(tmp_path / "x").text == OTHER
    assert set(read_trained(tmp_path / "x").ends) == {0, 2}
