"""Secrets: settings that hold one leave no recipe, and texts that quote a server or an address hide them.

A training copies its settings into records, cards, printed commands and `training_args.bin`, which people
publish. So a secret goes to the training as an environment variable, and into no file.
"""

import functools
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
    r"(?:^|_)(?:token|key|apikey|api_keys|secrets?|passwords?|passwd|pwd|passphrase|credentials?|auth|bearer"
    r"|authorization|webhook_url|webhook|(?:api|hub|hf|auth|access)_tokens)$"
)
"""Names of settings that hold a secret: hf_hub_token, swanlab_api_key, … but not skip_special_tokens."""
_NEW_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[-.\s]+")
"""Where a word begins in apiKey and api-key."""
_URL_PASSWORD = re.compile(r"(?<=://)[^/?#\s@'\"]*@")
_VALUE = r"(?:[^\s\"'{ends}\\]|\\++(?!\"))"
"""A character of a value, which ends before some others.

Backslashes before a double quote are none: in a line of JSON they belong to the quote.
"""
_URL_ARGUMENT = re.compile(
    r"(?<=[?&;])([\w.-]*(?:token|key|secret|password|passwd|signature|sig|auth)=)(?!\(hidden\))"
    rf"{_VALUE.format(ends='&;#')}+",
    re.IGNORECASE,
)
_FIELD = re.compile(
    r"((?:api[_-]?key|(?:hub|hf|auth|access)[_-]?token|secret|password|authorization)[\"']?\s*[:=]\s*[\"']?"
    r"(?:(?:bearer|basic)\s+)?)(?!\(hidden\)|[:\]]|bearer\b|basic\b"
    r"|(?:expected|unknown|missing|source|duplicate|damaged|neither|nothing|cannot|already|recipe|dataset) )"
    rf"({_VALUE.format(ends=',;&}')}{{6,}})",
    re.IGNORECASE,
)
"""A header or a field of JSON, YAML or a command line, up to its value, and the value.

What our messages say about such a file or setting is none: `hub_token: expected a text`.
"""
_JSON_KEY = re.compile(r"\"\s*:\s*\Z")
_JSON_VALUES = re.compile(r"[\[{](?:[\[{\]\d.eE+-]++|true|false|null|NaN|Infinity)*")
"""The beginning of a list or an object without texts."""
_OPTION = re.compile(
    r"((?<![\w-])--?(?:[\w-]*[-_])?(?:api-?key|token|secret|password|passwd|passphrase|auth)[= ]\s*[\"']?)"
    rf"(?!\(hidden\)|[-:,}}\]]){_VALUE.format(ends='')}+",
    re.IGNORECASE,
)
"""An option of a command line, up to its value. A quote before `:` or `,` ends a text of JSON instead."""
_KNOWN_FORM = re.compile(
    r"(?<!\w)(?:hf_[A-Za-z0-9]{20,}|sk-[\w-]{20,}|gh[oprsu]_\w{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}"
    r"|xox[abprs]-[\w-]{10,}|AKIA[A-Z0-9]{16}|eyJ(?:(?!-eyJ)[\w-]){10,}\.[\w-]{10,}\.[\w-]{10,})(?![\w-])"
)
"""Keys of Hugging Face, OpenAI, GitHub, GitLab, Slack and AWS, and web tokens: they show what they are."""
_CURRENT_FOLDER = "PWD"
"""A variable of every shell, whose name looks like that of a password."""
_SHORTEST = 6
"""Characters of the shortest value of a variable that is hidden: shorter ones are parts of many words."""


@functools.lru_cache(maxsize=1024)  # of the variables of the environment, at each line that is printed
def is_secret(name: str) -> bool:
    """True if a setting or a variable of this name holds a secret."""
    return _NAME.search(_NEW_WORD.sub("_", name).lower()) is not None


def public_settings(settings: Mapping[str, object]) -> dict[str, object]:
    """Settings without those that hold secrets, at any depth. Records of older trainings have them."""
    public: dict[str, object] = {}
    for key, value in settings.items():
        if value is None or not is_secret(str(key)):
            public[key] = _public_value(value)
    return public


def _public_value(value: object) -> object:
    if isinstance(value, Mapping):
        return public_settings(value)
    if isinstance(value, list):
        return [_public_value(each) for each in value]
    if isinstance(value, str):
        return _hide_forms(value)
    return value


def secrets_inside(value: object, place: str) -> list[str]:
    """Places of secrets inside a setting: `deepspeed.wandb.api_key`, or `model` for `https://me:word@host`."""
    places: list[str] = []
    if isinstance(value, Mapping):
        for key, part in value.items():
            inner = f"{place}.{key}"
            if part is not None and is_secret(str(key)):
                places.append(inner)
            else:
                places += secrets_inside(part, inner)
    elif isinstance(value, list):
        for number, part in enumerate(value):
            places += secrets_inside(part, f"{place}[{number}]")
    elif isinstance(value, str) and _hide_forms(value) != value:
        places.append(place)
    return places


def public_words(words: Iterable[str]) -> list[str]:
    """Words of a command without those that set a secret, as in `hub_token=hf_…`, and without passwords.

    The value of an option, as in `--api-key sk-…`, becomes `(hidden)`: the command needs one.
    """
    public: list[str] = []
    before = ""
    for word in words:
        key, equals, _unused = word.partition("=")
        if _OPTION.fullmatch(f"{before} x") and not word.startswith("-"):
            public.append(HIDDEN)
        elif not equals or key.startswith("-") or not is_secret(key):
            public.append(_hide_forms(word))
        before = word
    return public


def public_text(text: str) -> str:
    """A command or a value for a record: without the secrets that their form shows."""
    return _hide_forms(text)


def hide_secrets(text: str, secrets: Iterable[str] = ()) -> str:
    """A text in which passwords of addresses, and the values of secret environment variables, are hidden.

    `secrets` are further secrets. Call it on the whole text before it is cut: half a key is a secret, too.
    """
    text = hide_users_secrets(_hide_forms(text))
    for secret in secrets:
        text = text.replace(secret, HIDDEN)
    return text


def hide_users_secrets(text: str) -> str:
    """A text without the values of the user's secret environment variables, whatever else it has.

    Every stream goes through it. A row of data that says `password: changeme` is shown as it is.
    """
    for secret in _secrets_of_environment():
        text = text.replace(secret, HIDDEN)
    return text


def _hide_forms(text: str) -> str:
    """A text without the secrets that their form shows, whatever the environment."""
    text = _URL_PASSWORD.sub(f"{HIDDEN}@", text)
    text = _URL_ARGUMENT.sub(rf"\1{HIDDEN}", text)
    text = _FIELD.sub(_without_value, text)
    text = _OPTION.sub(rf"\1{HIDDEN}", text)
    return _KNOWN_FORM.sub(HIDDEN, text)


def _without_value(field: re.Match[str]) -> str:
    """A field whose value is hidden. A number in JSON becomes a text, so that the line stays JSON."""
    before, value = field.groups()
    if not _JSON_KEY.search(before):
        return f"{before}{HIDDEN}"
    if _JSON_VALUES.fullmatch(value):
        return field[0]
    return f'{before}"{HIDDEN}"'


def _secrets_of_environment() -> list[str]:
    """Values of variables such as OPENAI_API_KEY and HF_TOKEN, the longest first: one may contain another."""
    secrets = set()
    for name, value in os.environ.items():
        secret = value.strip()
        if is_secret(name) and name != _CURRENT_FOLDER and len(secret) >= _SHORTEST:
            secrets.add(secret)
    return sorted(secrets, key=len, reverse=True)
