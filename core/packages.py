"""Messages for missing packages, each with the command that installs the package."""

import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from tuneyard.core.checkout import ROOT

CORE = (
    "click", "datasets", "httpx", "huggingface_hub", "jinja2", "jsonschema", "jsonschema_rs",
    "lxml", "matplotlib", "numpy", "omegaconf", "openpyxl", "orjson", "pyarrow", "rensa", "tqdm",
    "yaml", "zstandard",
)  # fmt: skip
"""Import names of the packages in requirements-core.lock. A test compares them with pyproject.toml."""
VLLM_ENVIRONMENT = ".venv-vllm"
TRAIN = "train"
"""The extra of pyproject.toml for training and evaluation; in a checkout, `make setup` installs it."""
OF_EXTRAS = {TRAIN: ("bitsandbytes", "deepspeed"), "wandb": ("wandb",)}
"""Distributions that recipes may need, by the extra that installs them."""
OWN_ENVIRONMENT = (
    f"it wants an environment of its own, with or without a GPU: python3 -m venv "
    f'{VLLM_ENVIRONMENT} && {VLLM_ENVIRONMENT}/bin/pip install -e ".[vllm]" (docs/eval-nli.md)'
)


def is_checkout() -> bool:
    """Whether this is a clone with its Makefile. An installed wheel has none."""
    return (ROOT / "Makefile").is_file()


def missing(module: str) -> str:
    """Message for a module that cannot be imported, with the command that fixes it."""
    name = module.partition(".")[0]
    return f"{name} is not installed in {sys.executable}; {_fix(name)}"


def _fix(name: str) -> str:
    if name == "vllm":
        return OWN_ENVIRONMENT
    if name == "jieba":
        return f"install it with: {_pip_install(name)}"
    if not is_checkout():
        if name in CORE:
            return f"run {_pip_install('tuneyard')}"
        return f"run {set_up_command()}"
    environment = ROOT / ".venv"
    has_environment = (environment / "bin" / "python").exists()
    if has_environment and Path(sys.prefix).resolve() != environment.resolve():
        return f'run "{in_checkout("source .venv/bin/activate")}"'
    setup = '"make setup"'
    if name in CORE:
        setup = '"make setup-core" (or "make setup" for training and evaluation)'
    return f'run {setup}, then "source .venv/bin/activate"'


def in_checkout(command: str) -> str:
    """Prefix a command with `cd ROOT` if the current folder is not the checkout."""
    if Path.cwd() == ROOT:
        return command
    return f"cd {shlex.quote(str(ROOT))} && {command}"


def set_up_command(extra: str = TRAIN) -> str:
    """Command that installs an extra here: `make setup` in a checkout, otherwise uv or pip."""
    if not is_checkout():
        return _pip_install(f"tuneyard[{extra}]")
    if extra == TRAIN:
        return in_checkout("make setup")
    return in_checkout(f"make setup-{extra}")


def after_setup(command: str, *modules: str) -> str:
    """Next command to type, preceded by the set-up command if a package that it needs is missing."""
    if all(find_spec(module) for module in modules):
        return command
    setup = set_up_command()
    if "&&" in setup:  # the command itself runs in this folder
        setup = f"({setup})"
    return f"{setup} && {command}"


def install_command(distribution: str) -> str:
    """Command that installs a distribution here, with the extra that it belongs to."""
    for extra, distributions in OF_EXTRAS.items():
        if distribution in distributions:
            return set_up_command(extra)
    return _pip_install(distribution)


def _pip_install(requirement: str) -> str:
    """The command that installs a requirement here, for a message."""
    return shlex.join([*installer(), requirement])


def installer() -> list[str]:
    """Begin of a command that installs packages here. An environment made by uv has no pip."""
    if shutil.which("uv"):
        return ["uv", "pip", "install", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install"]


def require_core() -> None:
    """Exit with code 2 and a message if a package is missing that every command needs."""
    absent = [name for name in CORE if find_spec(name) is None]
    if absent:
        print(f"error: {missing(absent[0])}", file=sys.stderr)
        sys.exit(2)
