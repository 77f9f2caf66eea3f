"""python -m recipes plan R.yaml [key=value …]: steps, tokens, memory, time and disk of a training.

Tokens are counted with the recipe's tokenizer and template, the model is laid out from its config alone.
"""

import json
from pathlib import Path
from typing import Any

import click

from core.errors import CLI, ContentError, ProblemsError
from recipes.ask import ask
from recipes.check import packs, quick_check, training_schedule
from recipes.hardware import find_gpus
from recipes.memory import Memory, estimate, flops
from recipes.recipe import Recipe, read_recipe
from recipes.rules import world_size
from recipes.schedule import schedule_of
from recipes.sizes import disk_of, setup_of, shapes_of

# Dense bf16 tera-operations a second and gigabytes, from NVIDIA's data sheets.
GPUS = {
    "T4": (65, 16), "V100": (125, 32), "A10": (125, 24), "L4": (121, 24), "RTX3090": (71, 24),
    "RTX4090": (165, 24), "L40S": (362, 48), "A6000": (155, 48), "A100-40": (312, 40), "A100": (312, 80),
    "H100": (989, 80), "H200": (989, 141),
}  # fmt: skip
USED = 0.35  # the share of its peak that a GPU is assumed to reach; printed with every plan


@click.command("plan", context_settings=CLI)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--gpu", type=click.Choice(list(GPUS), case_sensitive=False), default="A100", show_default=True)
@click.option("--gpus", type=click.IntRange(1), help="How many of them (default: those here, else 1).")
@click.option("--model", help="Take tokenizer and config from this model folder (for a hub id, offline).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    recipe: Path, overrides: tuple[str, ...], gpu: str, gpus: int | None, model: str | None, as_json: bool
) -> None:
    """Say what a training takes: steps, tokens, memory, time, disk."""
    plan = make_plan(read_recipe(recipe, overrides), gpu, gpus, model)
    click.echo(json.dumps(plan, ensure_ascii=False) if as_json else "\n".join(_lines(plan)))


def make_plan(recipe: Recipe, gpu: str, gpus: int | None, model: str | None) -> dict[str, Any]:
    """Return the plan as numbers (bytes, seconds); `RequestError` where the model's config is not at hand."""
    parts, problems = quick_check(recipe)
    if errors := [p for p in problems if p.code.startswith("E") and p.code != "E340"]:
        raise ProblemsError(errors, f"{recipe.path} cannot be planned")
    click.echo("asking LLaMA-Factory …", err=True)
    answer = ask(recipe, model or recipe.text("model_name_or_path"))
    if answer.get("rejected"):
        raise ContentError(f"{recipe.path}: LLaMA-Factory refuses it: {answer['rejected']}")
    shapes = shapes_of(answer["model"])
    tokens = answer["tokens"]
    counted = tokens.get("datasets") if isinstance(tokens, dict) else None
    ranks = gpus or world_size(recipe, find_gpus())
    rows, seen, longest = _training_rows(recipe, counted)
    schedule = schedule_of(recipe, rows, ranks) if counted else training_schedule(recipe, parts)
    setup = setup_of(recipe, longest, ranks)
    each = seen / max(1, rows)
    total = each * schedule.batch * schedule.steps
    memory = estimate(shapes, setup)
    disk = disk_of(recipe, shapes, setup, schedule)
    return {
        "recipe": str(recipe.path), "schedule": schedule.line(), "steps": schedule.steps,
        "tokens": round(total), "tokens_counted": bool(counted), "longest": longest,
        "trainable": shapes.trainable, "parameters": shapes.parameters,
        "gpu": gpu, "gpus": ranks, "gpu_bytes": GPUS[gpu][1] * 1e9,
        "memory": {name: round(getattr(memory, name)) for name in [*Memory.__slots__, "total"]},
        "seconds": round(flops(shapes, setup, total) / (GPUS[gpu][0] * 1e12 * USED * ranks)),
        "checkpoint": disk.checkpoint, "checkpoints": disk.checkpoints, "disk_free": disk.free,
    }  # fmt: skip


def _training_rows(recipe: Recipe, counted: Any) -> tuple[int, int, int]:
    """Return rows (packed blocks count), tokens seen in an epoch, and the longest row after the cut."""
    cutoff = recipe.settings.get("cutoff_len", 2048)
    cutoff = cutoff if isinstance(cutoff, int) else 2048
    if not counted:
        return 0, 0, cutoff
    sets = [counted[name] for name in recipe.names("dataset")]
    if packs(recipe):
        blocks = sum(one["tokens"] // cutoff for one in sets)
        return blocks, blocks * cutoff, cutoff
    rows, seen = sum(one["rows"] for one in sets), sum(one["seen"] for one in sets)
    return rows, seen, min(cutoff, max(one["longest"] for one in sets))


def _lines(plan: dict[str, Any]) -> list[str]:
    memory, gigabytes = plan["memory"], 1e9
    parts = ", ".join(f"{name} {memory[name] / gigabytes:.1f}" for name in Memory.__slots__)
    fits = "fits" if memory["total"] <= plan["gpu_bytes"] else "does NOT fit"
    counted = "counted" if plan["tokens_counted"] else "not counted: no tokenizer at hand (--model DIR)"
    disk = plan["checkpoint"] * plan["checkpoints"]
    room = (
        ""
        if disk < plan["disk_free"]
        else f": NOT enough disk, {plan['disk_free'] / gigabytes:.0f} GB are free"
    )
    return [
        f"{plan['recipe']}: {plan['schedule']}",
        f"tokens       {plan['tokens']:,} in all ({counted}); the longest row has {plan['longest']}",
        f"parameters   {plan['trainable']:,} trained of {plan['parameters']:,} "
        f"({plan['trainable'] / plan['parameters']:.2%})",
        f"memory       {memory['total'] / gigabytes:.1f} GB a GPU, {fits} {plan['gpu']} "
        f"({plan['gpu_bytes'] / gigabytes:.0f} GB): {parts}",
        f"time         {_duration(plan['seconds'])} on {plan['gpus']} × {plan['gpu']}, "
        f"at an assumed {USED:.0%} of its peak",
        f"disk         {plan['checkpoints']} checkpoints of {plan['checkpoint'] / 1e6:,.0f} MB{room}",
    ]


def _duration(seconds: int) -> str:
    if seconds < 60:
        return "under a minute"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
