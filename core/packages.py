"""Messages for missing packages, each with the command that installs the package."""

import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from tuneyard.core.checkout import ROOT

CORE = (
    "click", "datasets", "httpx", "huggingface_hub", "jinja2", "jsonschema", "jsonschema_rs",
    "lxml", "matplotlib", "numpy", "openpyxl", "orjson", "pyarrow", "rensa", "tqdm", "yaml", "zstandard",
)  # fmt: skip
"""Import names of the packages in requirements-core.lock. A test compares them with pyproject.toml."""
VLLM_ENVIRONMENT = ".venv-vllm"
OF_EXTRAS = {"all": ("bitsandbytes", "deepspeed"), "wandb": ("wandb",)}
"""Distributions that recipes may need, by the extra that installs them."""
EXTRAS = {
    "jieba": 'install it with "make setup", or into another environment with pip install jieba '
    f"(uv: uv pip install --python {sys.executable} jieba)",
    "vllm": f"it wants an environment of its own, with or without a GPU: python3 -m venv "
    f'{VLLM_ENVIRONMENT} && {VLLM_ENVIRONMENT}/bin/pip install -e ".[vllm]" (docs/eval-nli.md)',
}


def missing(module: str) -> str:
    """Message for a module that cannot be imported, with the command that fixes it."""
    name = module.partition(".")[0]
    environment = ROOT / ".venv"
    has_environment = (environment / "bin" / "python").exists()
    core = '"make setup-core" (or "make setup" for training and evaluation)'
    setup = core if name in CORE else '"make setup"'
    fix = f'run {setup}, then "source .venv/bin/activate"'
    if has_environment and Path(sys.prefix).resolve() != environment.resolve():
        fix = f'run "{in_checkout("source .venv/bin/activate")}"'
    return f"{name} is not installed in {sys.executable}; {EXTRAS.get(name, fix)}"


def in_checkout(command: str) -> str:
    """Prefix a command with `cd ROOT` if the current folder is not the checkout."""
    if Path.cwd() == ROOT:
        return command
    return f"cd {shlex.quote(str(ROOT))} && {command}"


def after_setup(command: str, *modules: str) -> str:
    """Next command to type, preceded by the set-up command if a package that it needs is missing."""
    if all(find_spec(module) for module in modules):
        return command
    setup = "make setup" if Path.cwd() == ROOT else f"({in_checkout('make setup')})"
    return f"{setup} && {command}"


def install_command(distribution: str) -> str:
    """Command that installs a distribution here: `make setup` of an extra, or uv or pip.

    An environment made by uv has no pip.
    """
    extra = ""
    for name, distributions in OF_EXTRAS.items():
        if distribution in distributions:
            extra = name
    if extra and (ROOT / "Makefile").is_file():
        return in_checkout("make setup" if extra == "all" else f"make setup-{extra}")
    requirement = distribution
    if extra:
        requirement = f"'tuneyard[{extra}]'"
    if shutil.which("uv"):
        return f"uv pip install {requirement}"
    return f"python -m pip install {requirement}"


def require_core() -> None:
    """Exit with code 2 and a message if a package is missing that every command needs."""
    absent = [name for name in CORE if find_spec(name) is None]
    if absent:
        print(f"error: {missing(absent[0])}", file=sys.stderr)
        sys.exit(2)
