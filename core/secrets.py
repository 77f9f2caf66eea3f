"""Secrets: settings that hold one leave no recipe, and texts that quote a server or an address hide them.

A training copies its settings into records, cards, printed commands and `training_args.bin`, which people
publish. So a secret goes to the training as an environment variable, and into no file.
"""

import os
import re
from collections.abc import Iterable, Mapping

HIDDEN = "(hidden)"
"""What stands in place of a secret."""
VARIABLES = {
    "hf_hub_token": "HF_TOKEN",
    "hub_token": "HF_TOKEN",
    "ms_hub_token": "MODELSCOPE_API_TOKEN",
    "swanlab_api_key": "SWANLAB_API_KEY",
}
"""The environment variable from which the libraries of a training read such a setting."""
_NAME = re.compile(
    r"(?:^|_)(?:token|key|apikey|secret|password|passwd|credentials?|webhook_url|webhook)$", re.IGNORECASE
)
"""Names of settings that hold a secret: hf_hub_token, swanlab_api_key, … but not skip_special_tokens."""
_URL_PASSWORD = re.compile(r"(?<=://)[^/?#\s@'\"]*@")
_URL_ARGUMENT = re.compile(
    r"(?<=[?&;])([\w.-]*(?:token|key|secret|password|passwd|signature|sig|auth)=)[^&;#\s'\"]+",
    re.IGNORECASE,
)
_SHORTEST = 6
"""Characters of the shortest value of a variable that is hidden: shorter ones are parts of many words."""


def is_secret(name: str) -> bool:
    """True if a setting or a variable of this name holds a secret."""
    return _NAME.search(name) is not None


def public_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings without those that hold secrets, at any depth. Records of older trainings have them."""
    public: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            public[key] = public_settings(value)
        elif value is None or not is_secret(key):
            public[key] = value
    return public


def public_words(words: Iterable[str]) -> list[str]:
    """Words of a command without those that set a secret, as in `hub_token=hf_…`."""
    public = []
    for word in words:
        key, equals, _ = word.partition("=")
        if not equals or not is_secret(key):
            public.append(word)
    return public


def hide_secrets(text: str) -> str:
    """A text in which passwords of addresses, and the values of secret environment variables, are hidden.

    Call it on the whole text before it is cut: half a key is a secret, too.
    """
    text = _URL_PASSWORD.sub(f"{HIDDEN}@", text)
    text = _URL_ARGUMENT.sub(rf"\1{HIDDEN}", text)
    for secret in _secrets_of_environment():
        text = text.replace(secret, HIDDEN)
    return text


def _secrets_of_environment() -> list[str]:
    """Values of variables such as OPENAI_API_KEY and HF_TOKEN, the longest first: one may contain another."""
    secrets = set()
    for name, value in os.environ.items():
        secret = value.strip()
        if is_secret(name) and len(secret) >= _SHORTEST:
            secrets.add(secret)
    return sorted(secrets, key=len, reverse=True)
