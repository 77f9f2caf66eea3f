"""A key or a password in a server's answer or in an address is never printed: SECURITY.md, "Secrets"."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.conftest import ROOT, Here
from tests.json_files import write_json, write_lines
from tuneyard.compiler.cli import cli as data
from tuneyard.core.text.secrets import HIDDEN, hide_secrets
from tuneyard.eval.compare import __main__ as compare
from tuneyard.eval.models.connection import SHOWN_BYTES, without_key

KEY = "sk-0123456789abcdefghij"


@pytest.mark.parametrize(
    "text",
    [
        "http://me:hunter22@proxy:3128", "socks5://me:hunter22@host", "see https://hunter22@host/x, and more",
        "https://host/x?api_key=hunter22&a=1", "https://host/?X-Amz-Signature=hunter22",
        "?access_token=hunter22",
        "http://a:p%40hunter22@host and ftp://b:hunter22@host",
        "Authorization: Bearer hunter22", "{'Proxy-Authorization': 'Basic hunter22=='}", "api-key: hunter22",
        '{"api_key": "hunter22", "model": "m"}', "--password=hunter22", "hf_token: hunter22",
        "no access for hf_hunter22hunter22hunter22", "sk-proj-hunter22hunter22hunter22 is no key",
    ],
)  # fmt: skip
def test_passwords_of_addresses_are_hidden(text: str) -> None:
    assert "hunter22" not in hide_secrets(text) and HIDDEN in hide_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:8000/v1",
        "me@example.com",
        "https://hf.co/a/b?tokens=3",
        "a@b",
        "max_new_tokens: 4096000",
        "the token: unexpected",
        "hf_hub_download",
        "sk-learn",
        '{"token": "unlikely"}',
        "a secret of the house",
        "password: …",
        "Basic arithmetics",
        "an API key is missing: export OPENAI_API_KEY=…",
        "keys: premise, hypothesis",
        "sk_learn_models_for_text_classification",
    ],
)
def test_other_addresses_stay(text: str) -> None:
    assert hide_secrets(text) == text


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MY_PASSWORD"])
@pytest.mark.parametrize("before", range(SHOWN_BYTES - len(KEY) - 2, SHOWN_BYTES + 2, 5))
def test_a_key_is_hidden_before_the_text_is_cut(
    monkeypatch: pytest.MonkeyPatch, name: str, before: int
) -> None:
    """Half a key would still be printed by a cut that comes first."""
    monkeypatch.setenv(name, KEY)
    shown = hide_secrets(f"{'x' * before}{KEY} and more")[:SHOWN_BYTES]
    assert "sk-0" not in shown


def test_short_values_are_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    assert hide_secrets("there is none") == "there is none"


def test_an_answer_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert without_key(f'{{"error": "Bearer {KEY}"}}'.encode()) == b'{"error": "Bearer (hidden)"}'
    monkeypatch.delenv("OPENAI_API_KEY")
    assert without_key(KEY.encode()) == KEY.encode()


AWAY = {"HF_ENDPOINT": "http://me:hunter22@127.0.0.1:9", "HF_TOKEN": "hf_hunter22"}
PROXY = {"https_proxy": "http://me:hunter22@127.0.0.1:9", "HF_TOKEN": "hf_hunter22"}


def command(folder: Path, *words: str, **variables: str) -> str:
    """What a command prints and writes, with its own variables."""
    folder.mkdir(exist_ok=True)
    program = "from tuneyard.__main__ import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1, 2) and "Traceback" not in done.stderr, done.stderr
    files = [path.read_text() for path in folder.rglob("*") if path.is_file()]
    return "\n".join([done.stdout, done.stderr, *files])


@pytest.mark.parametrize(
    ("words", "variables"),
    [
        (["doctor"], AWAY),
        pytest.param(["data", "check", "rte"], AWAY, marks=pytest.mark.slow),
        (["data", "check", "qa", "--source", "hf://datasets/a/b/c.jsonl"], AWAY),
        pytest.param(["data", "check", "rte"], PROXY, marks=pytest.mark.slow),
        (["data", "check", "qa", "--source", "https://me:hunter22@127.0.0.1:9/a.jsonl"], {}),
        (["data", "check", "qa", "--source", "s3://me:hunter22@bucket/a.jsonl"], {}),
        (["eval", "qa", "--model", "https://me:hunter22@host/m", "--data", "a.jsonl", "--out", "o"], {}),
        (["eval", "chat", "--url", "http://me:hunter22@127.0.0.1:9/v1"], {}),
        (["eval", "chat", "--url", "http://127.0.0.1:9/v1"], {"http_proxy": "nonsense://me:hunter22@x"}),
        (["adapter", "show", "https://me:hunter22@host/m"], {}),
        (["recipe", "check", "r.yaml", "model_name_or_path=https://me:hunter22@host/m"], {}),
        (["recipe", "check", "hub_token=hunter22"], {}),
    ],
)  # fmt: skip
def test_no_command_prints_a_password_of_an_address(
    tmp_path: Path, words: list[str], variables: dict[str, str]
) -> None:
    """Nothing listens at port 9: the command names the address or the proxy that it cannot reach."""
    shown = command(tmp_path / "here", *words, **variables)
    assert shown.strip() and "hunter22" not in shown


def test_the_path_of_the_current_folder_is_no_secret(monkeypatch):
    monkeypatch.setenv("PWD", "/home/ann/tickets")
    assert hide_secrets("/home/ann/tickets-2/a.csv: not found") == "/home/ann/tickets-2/a.csv: not found"


@pytest.mark.parametrize(
    "message",
    [
        "home/.secret: unknown kind of file '' (known: .json)",
        "r.yaml:3: hub_token: expected a text",
        "password: missing in the file",
        "data/secret: source not found",
        "api_key: expected at most 3 words",
    ],
)
def test_messages_about_a_file_or_setting_of_such_a_name_stay_whole(message: str) -> None:
    assert hide_secrets(message) == message


@pytest.mark.parametrize(
    "text", ["password: expectedly9", "secret=unknown-to-all", "api_key: missing123", "hub_token: 'expected'"]
)
def test_a_secret_that_begins_like_a_message_is_hidden(text: str) -> None:
    assert "(hidden)" in hide_secrets(text)


NAMES = ("sk-0123456789abcdefghij", "https://me:hunter22@host/m", "password=hunter22", "open-sesame-9")
"""Names of models, labels and datasets, of which each is a secret or has one."""


def table(folder: Path, name: str) -> tuple[click.Command, list[object]]:
    rows = [f"{n},yes,{('yes', 'no')[n % 3 == 0]},{model},d" for n in range(12) for model in ("base", name)]
    (folder / "log.csv").write_text("\n".join(["id,gold,prediction,model,dataset", *rows]))
    return compare.cli, [folder / "log.csv", "--out", folder / "out"]


def shown_row(folder: Path, name: str) -> tuple[click.Command, list[object]]:
    write_lines(folder / "a.jsonl", [{"question": name, "answer": name}])
    return data, ["show", "qa", "--source", folder / "a.jsonl"]


def labels(folder: Path, name: str) -> tuple[click.Command, list[object]]:
    rows = [{"instruction": f"{n}?", "input": "", "output": (name, "no")[n % 2]} for n in range(12)]
    write_json(folder / "a.json", rows)
    return data, ["stats", folder / "a.json"]


def registry(folder: Path, name: str) -> tuple[click.Command, list[object]]:
    write_json(folder / "dataset_info.json", {name: {"file_name": name}})
    return data, ["list", "--dataset-dir", folder]


@pytest.mark.threat("secrets", "eval compare", "data list", "data stats")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [table, registry, labels])
def test_no_table_has_a_secret(
    tmp_path: Path, here: Here, without_plots: None, monkeypatch: pytest.MonkeyPatch, make, name: str
) -> None:
    monkeypatch.setenv("MY_PASSWORD", "open-sesame-9")
    command, words = make(tmp_path, name)
    done = here(command, *words)
    printed = done.stdout + done.stderr
    assert HIDDEN in printed
    for secret in ("sk-0123456789", "hunter22", "open-sesame"):
        assert secret not in printed


@pytest.mark.threat("secrets", "data show")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("make", [shown_row])
def test_rows_are_shown_as_they_are_but_for_the_users_own_keys(
    tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch, make, name: str
) -> None:
    """A command that audits data must not alter it: `password: changeme` may be what a model learns."""
    monkeypatch.setenv("MY_PASSWORD", "open-sesame-9")
    command, words = make(tmp_path, name)
    printed = here(command, *words).stdout
    assert "open-sesame" not in printed
    assert (name in printed) == (name != "open-sesame-9")


JSON_VALUES: tuple[object, ...] = (
    {"api_key": "hunter22"}, {"api_key": 1234567}, {"password": [1234567, 2]}, {"secret": -float("inf")},
    {"password": [False, 2]}, {"password": [[[[[["x"]]]]]]}, {"a": 'password: hunter22"x'},
    {"a": "password: hunter22\\"}, {"a": '--token=ab"c'}, {"a": "--token hunter22\\"}, {"--token ": "x"},
    {"u": 'https://x/?token=abc"d'}, {"u": "http://a\\:hunter22@c"}, {"password: ": 1234567},
)  # fmt: skip


@pytest.mark.parametrize("value", JSON_VALUES)
def test_a_line_of_json_stays_json(value: object) -> None:
    line = hide_secrets(json.dumps(value))
    assert "hunter22" not in line
    json.loads(line)
    assert hide_secrets(line) == line


def test_json_of_pieces_stays_json() -> None:
    """Texts of what begins, holds and ends secrets, in any order."""
    pieces = ("password", "api_key", ": ", "=", '"', "\\", "'", "hunter22", "--token ", "?token=", "http://")
    more = ("@", f"hf_{'a' * 22}", "\n", "{", "}", "[", "]", ",", "Bearer ", "1234567", "\x1b", HIDDEN)
    draw = random.Random(73)
    for _ in range(500):
        texts = ["".join(draw.choices(pieces + more, k=draw.randrange(9))) for _ in range(6)]
        value = {texts[0]: texts[1:3], texts[3]: draw.choice([None, 12345678, -1.5e-10]), texts[4]: texts[5]}
        for separators in ((", ", ": "), (",", ":")):
            line = hide_secrets(json.dumps(value, separators=separators))
            json.loads(line)
            assert hide_secrets(line) == line
