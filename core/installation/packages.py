"""Messages for missing packages, each with the command that installs the package."""

import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from tuneyard.core.installation.checkout import ROOT
from tuneyard.core.language.message import _, relative

CORE = (
    "chardet", "click", "datasets", "fsspec", "httpx", "huggingface_hub", "jinja2", "jsonschema",
    "jsonschema_rs", "lxml", "markupsafe", "matplotlib", "numpy", "omegaconf", "openpyxl", "orjson",
    "packaging", "pyarrow", "safetensors", "tqdm", "xxhash", "yaml",
)  # fmt: skip
"""Import names of the packages in requirements-core.lock. A test compares them with pyproject.toml."""
VLLM_ENVIRONMENT = ".venv-vllm"
"""Folder of the environment with vLLM, beside .venv."""
OLDEST_VLLM = "0.26"
"""The bound of the extra [vllm] in pyproject.toml: the oldest that the tests score with."""
TRAIN = "train"
"""The extra of pyproject.toml for training and evaluation; in a checkout, `make setup` installs it."""
NEAR = "near"
"""The extra for near duplicates; in a checkout, `make setup-near` installs it."""
RAY = "ray"
"""The extra for `--ray`; in a checkout, `make setup-ray` installs it."""
S3 = "s3"
"""The extra for `s3://` sources; in a checkout, `make setup-s3` installs it."""
SEARCH = "search"
"""The extra for `tuneyard eval sweep --search`; in a checkout, `make setup-search` installs it."""
EXTRAS = {"rensa": NEAR, RAY: RAY, "s3fs": S3, "optuna": SEARCH}
"""The extra that has a package, for those that the extra `train` lacks."""
OF_EXTRAS = {TRAIN: ("bitsandbytes", "deepspeed"), "wandb": ("wandb",)}
"""Distributions that recipes may need, by the extra that installs them."""


def is_checkout() -> bool:
    """Whether this is a clone with its Makefile. An installed wheel has none."""
    return (ROOT / "Makefile").is_file()


def missing(module: str) -> str:
    """Message for a module that cannot be imported, with the command that fixes it."""
    name = module.partition(".")[0]
    return _("{name} is not installed in {python}; {hint}", name=name, python=sys.executable, hint=_fix(name))


def _fix(name: str) -> str:
    if name == "vllm":
        return _(
            "it has an environment of its own, also without a GPU: {command} (docs/eval-nli.md)",
            command=vllm_set_up(),
        )
    if name == "jieba":
        return _("install it with: {command}", command=_pip_install(name))
    if name == "gcsfs":
        from fsspec import __version__ as fsspec_version  # the newest gcsfs would replace it by the newest

        return _("install it with: {command}", command=_pip_install(name, f"fsspec=={fsspec_version}"))
    if not is_checkout():
        if name in CORE:
            return _("run {command}", command=_pip_install("tuneyard"))
        return _("run {command}", command=set_up_command(EXTRAS.get(name, TRAIN)))
    environment = ROOT / ".venv"
    has_environment = (environment / "bin" / "python").exists()
    if has_environment and Path(sys.prefix).resolve() != environment.resolve():
        return _('run "{command}"', command=in_checkout("source .venv/bin/activate"))
    setup = '"make setup"'
    if name in EXTRAS:
        setup = f'"make setup-{EXTRAS[name]}"'
    if name in CORE:
        setup = _('"make setup-core" (or "make setup" for training and evaluation)')
    return _('run {command}, then "source .venv/bin/activate"', command=setup)


def vllm_set_up() -> str:
    """Commands that make an environment with vLLM and run tuneyard there."""
    return f"{_make_vllm_environment()} && {VLLM_ENVIRONMENT}/bin/tuneyard …"


def after_vllm_setup(command: str) -> str:
    """Next command to type, with `vllm` on PATH, preceded by the set-up of its environment."""
    if shutil.which("vllm"):
        return command
    environment = Path(VLLM_ENVIRONMENT)
    if is_checkout() and Path.cwd() != ROOT:
        environment = ROOT / VLLM_ENVIRONMENT
    programs = environment / "bin"
    command = f'PATH={shlex.quote(relative(programs))}:"$PATH" {command}'
    if (programs / "vllm").is_file():
        return command
    return _set_up_first(_make_vllm_environment(), command)


def _make_vllm_environment() -> str:
    if is_checkout():
        return in_checkout("make setup-vllm")
    install = f'{VLLM_ENVIRONMENT}/bin/pip install "tuneyard[train,vllm]"'
    return f"python3 -m venv {VLLM_ENVIRONMENT} && {install}"


def in_checkout(command: str) -> str:
    """Prefix a command with `cd ROOT` if the current folder is not the checkout."""
    if Path.cwd() == ROOT:
        return command
    return f"cd {shlex.quote(str(ROOT))} && {command}"


def set_up_command(extra: str = TRAIN) -> str:
    """Command that installs an extra here: `make setup[-EXTRA]` in a checkout, otherwise uv or pip."""
    if not is_checkout():
        return _pip_install(f"tuneyard[{extra}]")
    if extra == TRAIN:
        return in_checkout("make setup")
    return in_checkout(f"make setup-{extra}")


def after_setup(command: str, *modules: str) -> str:
    """Next command to type, preceded by the set-up command if a package that it needs is missing."""
    if all(map(find_spec, modules)):
        return command
    return _set_up_first(set_up_command(), command)


def _set_up_first(setup: str, command: str) -> str:
    if "&&" in setup:  # the command itself runs in this folder
        setup = f"({setup})"
    return f"{setup} && {command}"


def install_command(distribution: str) -> str:
    """Command that installs a distribution here, with the extra that it belongs to."""
    for extra, distributions in OF_EXTRAS.items():
        if distribution in distributions:
            return set_up_command(extra)
    return _pip_install(distribution)


def _pip_install(*requirements: str) -> str:
    """The command that installs requirements here, for a message."""
    return shlex.join([*installer(), *requirements])


def installer() -> list[str]:
    """Begin of a command that installs packages here. An environment made by uv has no pip."""
    if shutil.which("uv"):
        return ["uv", "pip", "install", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install"]
