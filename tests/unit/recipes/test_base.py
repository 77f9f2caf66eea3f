"""`recipes base` without its long part: what is there is left alone, and offline there is a way out."""

import re

import pytest

from tests.cli.scoring import call, invoke
from tests.json_files import write_json
from tests.messages import raises
from tuneyard.core.errors import RequestError
from tuneyard.core.installation import packages
from tuneyard.recipes.base import __main__ as base


@pytest.fixture
def model(tmp_path):
    """The folder of a written model, with files of no content."""
    folder = tmp_path / "m"
    folder.mkdir()
    for name in base.FILES:
        (folder / name).touch()
    write_json(folder / base.ORIGIN, {"package": base.PACKAGE, "sha256": base.WHEEL_SHA256})
    return folder


def test_up_to_date_at_once(model):
    done = invoke(base.command, "--out", model)
    assert (done.exit_code, done.stdout) == (0, f"{model}: up to date\n")
    assert done.stderr == f"next: tuneyard demo --model {model}\n"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "origin.json"])
def test_a_model_without_one_of_its_files_is_not_the_model(model, name):
    (model / name).unlink()
    with raises(RequestError, "--out", f"{model / name} is missing"):
        call(base.command, "--out", model)


def test_a_model_of_another_package_is_not_the_model(model):
    write_json(model / base.ORIGIN, {"package": base.PACKAGE, "sha256": "0" * 64})
    with raises(RequestError, "--out", f"{base.PACKAGE} changed"):
        call(base.command, "--out", model)


def test_a_folder_of_someone_else_is_left_alone(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text("mine")
    with raises(RequestError):
        call(base.command, "--out", tmp_path / "m")
    assert (tmp_path / "m" / "config.json").read_text() == "mine"


def test_offline_says_both_ways_out_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_CACHE", "1")
    with raises(RequestError, "PIP_FIND_LINKS=FOLDER", "--model", "DIR"):
        call(base.command, "--out", tmp_path / "models" / "m")
    assert not (tmp_path / "models").exists()  # which it made


def test_the_package_is_asked_for_by_its_hash(monkeypatch, tmp_path):
    """The installer is a script that notes its words and the file of requirements."""
    folder = tmp_path / "package"
    (folder / base.GGUF).parent.mkdir(parents=True)
    (folder / base.GGUF).touch()
    notes = f'echo "$0 $1 $2 $3 $4" > {tmp_path}/words; cat "$5" > {tmp_path}/requirements'
    monkeypatch.setattr(base, "installer", lambda: ["sh", "-c", notes])
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda _: base)
    base.fetch(folder)
    assert (tmp_path / "words").read_text() == f"--no-deps --require-hashes --target {folder} -r\n"
    requirement = (tmp_path / "requirements").read_text()
    assert re.fullmatch(r"[\w-]+==[\d.]+ --hash=sha256:[0-9a-f]{64}\n", requirement)
    assert base.WHEEL_SHA256 in requirement


def test_an_installer_is_found_or_asked_for(monkeypatch, tmp_path):
    assert packages.installer()[-1] in {"install", packages.sys.executable}
    monkeypatch.setattr(packages.shutil, "which", lambda _: None)
    monkeypatch.setattr(base.importlib.util, "find_spec", lambda _: None)
    with raises(RequestError, "ensurepip"):
        base.fetch(tmp_path)
