"""A package that is not installed is a sentence with the command that installs it, never a traceback."""

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
"""Import names of what requirements-core.lock installs; a test holds them equal to pyproject.toml."""
OWN = ".venv-vllm"
OF_EXTRAS = {"all": ("bitsandbytes", "deepspeed"), "wandb": ("wandb",)}
"""Distributions that recipes may name and that an extra of ours installs."""
EXTRAS = {
    "jieba": 'install it with "make setup", or into another environment with pip install jieba '
    f"(uv: uv pip install --python {sys.executable} jieba)",
    "vllm": f"it wants an environment of its own, with or without a GPU: python3 -m venv {OWN} && "
    f'{OWN}/bin/pip install -e ".[vllm]" (docs/eval-nli.md)',
}


def missing(module: str) -> str:
    """Return the sentence for a module that cannot be imported, with the command that mends it."""
    name, environment = module.partition(".")[0], ROOT / ".venv"
    there = (environment / "bin" / "python").exists()  # itself a link to the Python that it was made with
    core = '"make setup-core" (or "make setup" for training and evaluation)'
    setup = core if name in CORE else '"make setup"'
    fix = f'run {setup}, then "source .venv/bin/activate"'
    if there and Path(sys.prefix).resolve() != environment.resolve():
        fix = f'run "{in_checkout("source .venv/bin/activate")}"'
    return f"{name} is not installed in {sys.executable}; {EXTRAS.get(name, fix)}"


def in_checkout(command: str) -> str:
    """Return a command as it is typed from here, where the checkout may be another folder."""
    return command if Path.cwd() == ROOT else f"cd {shlex.quote(str(ROOT))} && {command}"


def after_setup(command: str, *modules: str) -> str:
    """Return a command to type next, behind the set-up command if a package that it needs is missing."""
    if all(find_spec(module) for module in modules):
        return command
    setup = "make setup" if Path.cwd() == ROOT else f"({in_checkout('make setup')})"
    return f"{setup} && {command}"


def install_command(distribution: str) -> str:
    """Return the command that adds a distribution to this environment: of an extra of ours, or the installer.

    A uv environment has no pip.
    """
    extra = next((name for name, packages in OF_EXTRAS.items() if distribution in packages), "")
    if extra and (ROOT / "Makefile").is_file():
        return in_checkout("make setup" if extra == "all" else f"make setup-{extra}")
    wanted = f"'tuneyard[{extra}]'" if extra else distribution
    return f"uv pip install {wanted}" if shutil.which("uv") else f"python -m pip install {wanted}"


def require_core() -> None:
    """Leave with exit code 2 and one sentence where a package is missing that every command needs."""
    absent = [name for name in CORE if find_spec(name) is None]
    if absent:
        print(f"error: {missing(absent[0])}", file=sys.stderr)
        sys.exit(2)
