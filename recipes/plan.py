"""tuneyard recipe plan R.yaml [key=value …]: steps, tokens, memory, time and disk of a training."""

import json
from pathlib import Path
from typing import Any

import click

from tuneyard.core.cli import cli_command
from tuneyard.core.errors import RequestError, counted
from tuneyard.core.next_step import next_step
from tuneyard.recipes import costs
from tuneyard.recipes.check import ask_check, quick_check
from tuneyard.recipes.hardware import GPUS, find_gpus, machine, world_size
from tuneyard.recipes.llamafactory_client import LlamaFactory
from tuneyard.recipes.recipe import Recipe, read_recipe

OF_THE_DISK = {"E340", "E342", "E343", "E344"}  # what the plan says itself, or has nothing to do with it


@cli_command(
    "plan",
    "tuneyard recipe plan recipes/demo-rte.yaml",
    "tuneyard recipe plan recipes/demo-rte.yaml --gpu A100",
)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--gpu", type=click.Choice(list(GPUS), case_sensitive=False), default="A100", show_default=True)
@click.option("--gpus", type=click.IntRange(1), help="How many of them (default: those here, else 1).")
@click.option("--model", help="Take tokenizer and config from this model folder (for a hub id, offline).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(
    recipe: Path, overrides: tuple[str, ...], gpu: str, gpus: int | None, model: str | None, as_json: bool
) -> None:
    """Estimate steps, tokens, memory, time and disk of a training."""
    plan = make_plan(read_recipe(recipe, overrides), gpu, gpus, model)
    click.echo(json.dumps(plan, ensure_ascii=False) if as_json else "\n".join(_lines(plan)))
    next_step("", ["tuneyard", "recipe", "train", recipe, *overrides])


def make_plan(recipe: Recipe, gpu: str, gpus: int | None, model: str | None) -> dict[str, Any]:
    """The plan in bytes and seconds. `RequestError` if the model's config is not on this machine."""
    if recipe.settings.get("do_train") is not True:
        raise RequestError(f"{recipe.place('do_train')}: do_train is not true: there is no training to plan")
    ranks = gpus or world_size(recipe, find_gpus())
    checked = quick_check(recipe, machine(f"{ranks}x{gpu}"))
    checked.refuse(OF_THE_DISK)
    with LlamaFactory() as llamafactory:
        checked = ask_check(llamafactory, checked, model)
    checked.refuse(OF_THE_DISK)
    answer, schedule = checked.answer, checked.schedule
    shapes = costs.shapes_of(answer["model"])
    unknown = {"rows": 0, "seen": 0, "longest": recipe.settings.get("cutoff_len") or 2048}
    train = answer["tokens"].get("train", unknown)
    longest, mean = train["longest"], train["seen"] / max(1, train["rows"])
    setup = costs.setup_of(recipe, longest, ranks)
    total = mean * schedule.batch * schedule.steps
    lower, upper = map(_rounded, costs.estimate(shapes, setup))
    length = mean / setup.sequences
    work = costs.flops(shapes, setup, total, length) / ranks
    passes = 1 + setup.read / 3  # a trained one is three of those that only read
    micro_batches = schedule.steps * costs.gathered(recipe) * passes
    time = costs.duration(shapes, setup, work, total / ranks, micro_batches, GPUS[gpu])
    each, checkpoints, free = costs.disk_of(recipe, shapes, setup, schedule)
    steps, line = None, "rows and steps are not known"
    if schedule.rows:
        steps, line = schedule.steps, schedule.line()
    seconds = None
    if work:
        seconds = {name: round(value) for name, value in time._asdict().items()}
    return {
        "recipe": str(recipe.path), "steps": steps, "schedule": line,
        "tokens": round(total), "tokens_counted": train is not unknown, "longest": longest,
        "trainable": shapes.trainable, "parameters": shapes.parameters,
        "gpu": gpu, "gpus": ranks, "gpu_bytes": GPUS[gpu].memory,
        "memory": {"lower": lower, "upper": upper},
        "seconds": seconds,
        "not_modelled": costs.unmodelled(recipe, shapes, answer["model"]["quantised"]),
        "checkpoint": each, "checkpoints": checkpoints, "disk_free": free,
    }  # fmt: skip


def _rounded(memory: costs.Memory) -> dict[str, int]:
    """Bytes per GPU by purpose, and in `total`."""
    parts = {name: round(part) for name, part in memory._asdict().items()}
    return {**parts, "total": round(memory.total)}


def _lines(plan: dict[str, Any]) -> list[str]:
    lower, upper = plan["memory"].values()
    parts = ", ".join(f"{name} {_range(lower[name], upper[name])}" for name in costs.Memory._fields)
    tokens = "not counted, rows or tokenizer are not at hand (--model DIR); the rest is for rows of"
    if plan["tokens_counted"]:
        tokens = f"{plan['tokens']:,} in all (counted); the longest row has"
    time = "not known"
    if plan["seconds"]:
        ends = _duration(plan["seconds"]["lower"]), _duration(plan["seconds"]["upper"])
        time = f"about {_duration(plan['seconds']['middle'])}"
        if ends[0] != ends[1]:
            time += f" ({ends[0]} to {ends[1]})"
        else:
            time = ends[0]
    disk = plan["checkpoint"] * plan["checkpoints"]
    free = ""
    if disk >= plan["disk_free"]:
        free = f": NOT enough disk, {plan['disk_free'] / 1e9:.0f} GB are free"
    lines = [
        f"{plan['recipe']}: {plan['schedule']}",
        f"tokens       {tokens} {plan['longest']}",
        f"parameters   {plan['trainable']:,} trained of {plan['parameters']:,} "
        f"({plan['trainable'] / plan['parameters']:.2%})",
        f"memory       {_range(lower['total'], upper['total'])} GB a GPU, {fits(plan)} {plan['gpu']} "
        f"({plan['gpu_bytes'] / 1e9:.0f} GB): {parts}",
        f"time         {time} on {plan['gpus']} × {plan['gpu']}",
        f"disk         {counted(plan['checkpoints'], 'checkpoint')} of {plan['checkpoint'] / 1e6:,.0f} MB"
        f"{free}",
    ]
    if plan["not_modelled"]:
        lines.append(f"unknown      what this adds to memory and time: {', '.join(plan['not_modelled'])}")
    return lines


def fits(plan: dict[str, Any]) -> str:
    """Whether a training fits its GPUs, in words. It fits if the upper end does."""
    if plan["memory"]["lower"]["total"] > plan["gpu_bytes"]:
        return "does NOT fit"
    if plan["memory"]["upper"]["total"] > plan["gpu_bytes"]:
        return "may NOT fit"
    if plan["not_modelled"]:
        return "fits, as far as it is known,"
    return "fits"


def _range(lower: float, upper: float) -> str:
    return f"{lower / 1e9:.1f}–{upper / 1e9:.1f}"


def _duration(seconds: int) -> str:
    if seconds < 60:
        return "under a minute"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min"
