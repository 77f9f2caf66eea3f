"""A key or a password in a server's answer or in an address is never printed: SECURITY.md, "Secrets"."""

import pytest

from tuneyard.core.secrets import HIDDEN, hide_secrets
from tuneyard.eval.backends.connection import SHOWN_BYTES, without_key

KEY = "sk-0123456789abcdefghij"


@pytest.mark.parametrize(
    "text",
    [
        "http://me:hunter22@proxy:3128", "socks5://me:hunter22@host", "see https://hunter22@host/x, and more",
        "https://host/x?api_key=hunter22&a=1", "https://host/?X-Amz-Signature=hunter22",
        "?access_token=hunter22",
        "http://a:p%40hunter22@host and ftp://b:hunter22@host",
    ],
)  # fmt: skip
def test_passwords_of_addresses_are_hidden(text: str) -> None:
    assert "hunter22" not in hide_secrets(text) and HIDDEN in hide_secrets(text)


@pytest.mark.parametrize(
    "text", ["http://localhost:8000/v1", "me@example.com", "https://hf.co/a/b?tokens=3", "a@b"]
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
