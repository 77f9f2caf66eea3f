"""`python -m tools.bench.sweep [--points N] [--steps N]`: a sweep on two slots against one, on CPUs.

Both train the same points of a tiny model, from start to table. The first to run changes every round.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from tests.conftest import ROOT
from tests.integration.weighted_losses import register, settings
from tests.tiny import make_tiny


def seconds(recipe: Path, out: Path, points: int, threads: int) -> tuple[float, float]:
    """Wall and CPU seconds of a sweep whose points have so many threads each."""
    seeds = ",".join(str(seed) for seed in range(1, points + 1))
    words = ["sweep", recipe, f"seed={seeds}", "--out", out, "--metric", "train_loss"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    environment["XDG_CACHE_HOME"] = str(out / "cache")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    command = [sys.executable, "-m", "recipes", *map(str, words)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=9)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        raise SystemExit("two slots need two cores")
    threads_by_name = {"one slot": cores, "two slots": cores // 2}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        register(folder)
        model = make_tiny(folder / "model")
        recipe = folder / "r.yaml"
        recipe.write_text(yaml.safe_dump(settings(folder, str(model), "run", max_steps=options.steps)))
        walls: dict[str, float] = dict.fromkeys(threads_by_name, 0.0)
        for number in range(options.rounds):
            names = list(threads_by_name)
            if number % 2:
                names.reverse()
            for name in names:
                out = folder / f"{name}-{number}".replace(" ", "-")
                wall, cpu = seconds(recipe, out, options.points, threads_by_name[name])
                walls[name] += wall
                print(
                    f"  {name}, {threads_by_name[name]} threads each: {wall:.0f} s, {cpu:.0f} CPU s",
                    flush=True,
                )
    share = walls["two slots"] / walls["one slot"]
    print(f"{options.points} points on two slots: {share:.2f} × the time of one slot ({cores} cores)")


if __name__ == "__main__":
    main()
