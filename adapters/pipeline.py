"""A merge from its request to the folder in its place: open, plan, write, describe, publish."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adapters.base import open_base
from adapters.card import card, merged_config
from adapters.config import CONFIG
from adapters.merge import Distances, Method, Plan, plan_merge, write_merge
from adapters.output import carry_tokenizer, check_output, clean_up, folder_for
from adapters.parts import open_parts
from core.files import write_json, write_text


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asked to be merged: references with weights, how, where, and against which base."""

    wanted: list[tuple[str, float]]
    method: Method
    out: Path
    base: Path | None = None
    force: bool = False


def plan(request: Request) -> Plan:
    """Open everything that a request names and return what would be written; nothing is written."""
    parts = open_parts(request.wanted)
    check_output(request.out, (part.adapter.folder for part in parts), force=request.force)
    return plan_merge(parts, request.method, open_base(request.base) if request.base else None)


def merge(request: Request, planned: Plan, say: Callable[[str], None]) -> Distances:
    """Write a planned merge as a whole folder; the config comes last, so that nothing unfinished loads."""
    target = request.out.resolve()
    clean_up(target.parent)
    with folder_for(target) as staged:
        distances = write_merge(planned, staged)
        folders = [part.adapter.folder for part in planned.parts]
        differing = carry_tokenizer(folders, staged)
        if differing:
            say(f"not carried, since the adapters differ in them: {', '.join(differing)}")
        write_text(staged / "README.md", card(planned, distances))
        write_json(staged / CONFIG, merged_config(planned))
    return distances
