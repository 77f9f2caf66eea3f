"""Find out if Weights & Biases is installed and configured, so that `recipe train` reports to it."""

import netrc
import os
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from tuneyard.recipes.recipe import Recipe

WANDB_SERVER = "https://api.wandb.ai"


def added_tracker(recipe: Recipe) -> dict[str, object]:
    """{"report_to": "wandb"} if wandb is installed and configured and the recipe names no tracker, or {}."""
    if "report_to" in recipe.settings or find_spec("wandb") is None or not is_wandb_configured():
        return {}
    return {"report_to": "wandb"}


def is_wandb_configured() -> bool:
    """True if wandb runs without asking for a login: WANDB_API_KEY, WANDB_MODE=offline, or a netrc entry.

    WANDB_MODE=disabled and WANDB_DISABLED=true switch it off.
    """
    mode = os.environ.get("WANDB_MODE", "").lower()
    is_disabled = os.environ.get("WANDB_DISABLED", "").lower() in {"1", "true", "yes", "on"}
    if mode == "disabled" or is_disabled:
        return False
    return mode == "offline" or bool(os.environ.get("WANDB_API_KEY")) or _has_netrc_entry()


def _has_netrc_entry() -> bool:
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or WANDB_SERVER).hostname
    paths = [Path.home() / ".netrc", Path.home() / "_netrc"]
    if os.environ.get("NETRC"):
        paths = [Path(os.environ["NETRC"])]
    for path in paths:
        try:
            logins = netrc.netrc(str(path))
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError):
            continue
        if host in logins.hosts:
            return True
    return False
