"""One cell of the table: check, plan, train, best, fuse, score, each command as a user types it.

What a command prints is not believed. Its files are read: the trained weights have moved, the checkpoint is
there, and the scores of the trained and of the fused model are those that LLaMA-Factory measured.
"""

import contextlib
import json
import re
import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from testing import Done
from testing.forks import IMPORTED, Forks
from testing.stages.cells import METHODS, STAGES, STEPS
from testing.stages.material import Material
from tuneyard.core.weights.tensors import open_weights

PIXELS = {"image_max_pixels": 4096, "image_min_pixels": 784}
PLACE = re.compile(r"^\S*/\S+: ")
"""The file in which a command found a reason: it is of one run."""
FUSED, CONVERTED, WHOLE, REFUSED = "fused", "converted", "whole", "refused"
RunCell = Callable[[str], dict[str, object]]


class StopError(Exception):
    """A command that ends a cell's way: its name, and the line in which it says why."""

    def __init__(self, command: str, reason: str, code: str | None = None) -> None:
        super().__init__(f"{command}: {reason}")
        self.command, self.reason, self.code = command, reason, code


@contextlib.contextmanager
def cells_below(folder: Path) -> Iterator[RunCell]:
    """A function that takes the way of a cell by its name; the cell's folder is removed with its outcome.

    All commands are forks of one process with its imports, and trainings of one that has LLaMA-Factory's.
    AssertionError if what a command says is not what its files have.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment |= {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONWARNINGS": "ignore"}
    with Forks(*IMPORTED, env=environment) as forks:
        material = Material(folder, forks)

        def run(name: str) -> dict[str, object]:
            stage, _unused, method = name.partition("/")
            cell = folder / "cells" / name.replace(" ", "-")
            outcome = Walk(forks, material, cell, stage, method).run()
            shutil.rmtree(cell)
            return outcome

        yield run


@dataclass
class Walk:
    """The way of one cell, below `folder`."""

    forks: Forks
    material: Material
    folder: Path
    stage_name: str
    method_name: str
    facts: dict[str, object] = field(default_factory=dict)
    evaluated: dict[str, float] = field(default_factory=dict)
    """LLaMA-Factory's evaluation at the best step."""

    def __post_init__(self) -> None:
        self.stage, self.method = STAGES[self.stage_name], METHODS[self.method_name]
        self.model = self.material.model(sees=self.stage.sees)
        self.dataset = self.material.dataset(self.stage.spec)
        self.out = self.folder / "out"
        self.template = None if self.stage_name == "pt" else "qwen2_vl" if self.stage.sees else "qwen"

    def run(self) -> dict[str, object]:
        """Take the way and tell its outcome."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        try:
            outcome = self.walk()
        except StopError as stop:
            outcome = REFUSED
            self.facts |= {"command": stop.command, "reason": stop.reason}
            if stop.code:
                self.facts["code"] = stop.code
        return {"outcome": outcome, **self.facts}

    def walk(self) -> str:
        recipe = self.write_recipe()
        self.check(recipe)
        self.plan(recipe)
        self.tuneyard("recipe", "train", recipe)
        trained = self.best()
        if self.stage.scored_by is None:  # no command reads a value head: the trainer's own figure
            by_accuracy = self.tuneyard("recipe", "best", self.out, "--metric", "eval_accuracy", "--json")
            assert 0 <= json.loads(by_accuracy.stdout)["value"] <= 1
        assert self.moved(trained) > 0, f"{trained}: the training changed nothing"
        if not self.method.is_adapter:
            self.score("trained", "--model", trained)
            return WHOLE
        fused = self.fuse(trained)
        of_fused = self.score("fused", "--model", fused)
        if self.stage.scored_by and self.can_score_adapter():
            adapter = ["--model", self.model, "--adapter", f"run={trained}", "--no-base"]
            if self.is_quantised:
                adapter += ["--quantize", 4]
            of_adapter = self.score("adapter", *adapter)
            np.testing.assert_allclose(of_fused, of_adapter, rtol=self.tolerance)
        return CONVERTED if self.method_name == "PiSSA" else FUSED

    @property
    def is_quantised(self) -> bool:
        return "quantization_bit" in self.method.settings

    @property
    def tolerance(self) -> float:
        """Relative, of figures of the same weights by two programs; 4-bit products are rounded."""
        return 2e-4 if self.is_quantised else 1e-4

    def can_score_adapter(self) -> bool:
        """True unless the change needs the base's weights, or `eval` refuses images under --quantize."""
        return self.method_name not in ("DoRA", "oft") and not (self.is_quantised and self.stage.sees)

    def write_recipe(self) -> Path:
        added: dict[str, object] = {}
        if self.template:
            added["template"] = self.template
        if self.stage.sees:
            added |= {"media_dir": str(self.material.folder / "raw" / self.stage.spec), **PIXELS}
        if self.stage_name != "rm":  # which LLaMA-Factory refuses
            added |= {"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"}
        settings = {
            "model_name_or_path": str(self.model),
            **self.stage.settings,
            **self.method.settings,
            **added,
            "do_train": True,
            "dataset_dir": str(self.material.info),
            "dataset": self.dataset.train,
            "eval_dataset": self.dataset.evaluation,
            "cutoff_len": self.material.block_of_a_text() if self.stage_name == "pt" else 128,
            "overwrite_cache": True,
            "output_dir": str(self.out),
            "logging_steps": 1,
            "save_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": 1,
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 1,
            "max_steps": STEPS,
            "report_to": "none",
        }
        path = self.folder / "recipe.yaml"
        path.write_text(yaml.safe_dump(settings, sort_keys=False))
        return path

    def tuneyard(self, *words: object) -> Done:
        """Run a command. StopError if it ends in exit code 1 or 2 and says why."""
        command = f"{words[0]} {words[1]}"
        done = self.forks.run("tuneyard", *words, code=None)
        if done.returncode == 0:
            return done
        printed = done.stdout + done.stderr
        with (self.folder / "printed.log").open("a") as log:
            log.write(f"$ tuneyard {' '.join(map(str, words))}\nexit {done.returncode}\n{printed}\n")
        assert done.returncode in (1, 2), printed
        assert "Traceback" not in printed, printed
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        reason = line.removeprefix("error: ")
        if reason.startswith("LLaMA-Factory failed"):  # the line that follows has its reason
            reason = done.stderr.partition(f"{line}\n")[2].splitlines()[0]
        raise StopError(command, PLACE.sub("", reason))

    def check(self, recipe: Path) -> None:
        done = self.forks.run("tuneyard", "recipe", "check", recipe, "--for", "this", "--json", code=None)
        problems = json.loads(done.stdout)["problems"]
        self.facts["check"] = sorted({problem["code"] for problem in problems})
        errors = [problem for problem in problems if problem["code"][0] == "E"]
        assert done.returncode == (1 if errors else 0), done.stderr
        for problem in errors:
            raise StopError("recipe check", problem["message"], problem["code"])

    def plan(self, recipe: Path) -> None:
        """Whether `recipe plan` knows the training; that it does not is no end of the way."""
        try:
            self.tuneyard("recipe", "plan", recipe)
            self.facts["plan"] = True
        except StopError as stop:
            self.facts["plan"] = stop.reason

    def best(self) -> Path:
        """The folder of the best weights: the checkpoint that `recipe best` names, whose copy the run has."""
        answer = json.loads(self.tuneyard("recipe", "best", self.out, "--json").stdout)
        state = json.loads((self.out / "trainer_state.json").read_text())
        evaluations = {entry["step"]: entry for entry in state["log_history"] if "eval_loss" in entry}
        assert len(evaluations) == STEPS
        self.evaluated = evaluations[answer["step"]]
        assert answer["value"] == min(entry["eval_loss"] for entry in evaluations.values())
        checkpoint = Path(answer["checkpoint"])
        assert checkpoint == self.out / f"checkpoint-{answer['step']}"
        converted = self.out / "pissa_converted"
        if converted.is_dir():  # of the best weights, which were loaded last
            return converted
        if self.stage_name != "rm":
            for weights in checkpoint.glob("*model*.safetensors"):
                assert weights.read_bytes() == (self.out / weights.name).read_bytes(), weights
        return checkpoint

    def moved(self, trained: Path) -> float:
        """The largest change of a weight against the start of the training."""
        if not self.method.is_adapter:
            weights, start = (open_weights(folder / "model.safetensors") for folder in (trained, self.model))
            return max(float(np.abs(weights.read(name) - start.read(name)).max()) for name in start.tensors)
        if self.method_name == "PiSSA":  # it starts at singular vectors, not at 0
            folders = [self.out / f"checkpoint-{step}" for step in (1, STEPS)]
            first, last = (open_weights(folder / "adapter_model.safetensors") for folder in folders)
            return max(float(np.abs(first.read(name) - last.read(name)).max()) for name in first.tensors)
        weights = open_weights(trained / "adapter_model.safetensors")
        from_zero = [name for name in weights.tensors if "lora_B" in name or "oft_R" in name]
        return max(float(np.abs(weights.read(name)).max()) for name in from_zero)

    def fuse(self, trained: Path) -> Path:
        fused = self.folder / "fused"
        base = ["--base", self.model, "--out", fused, "--dtype", "fp32"]
        self.tuneyard("adapter", "fuse", trained, *base, *self.method.fuse_options)
        return fused

    def score(self, name: str, *words: object) -> list[float]:
        """Score the evaluation rows, and compare with LLaMA-Factory's figure at the best step.

        Loss or log-probability of each row in nats; none if no command scores the stage.
        """
        if self.stage.scored_by is None:
            return []
        out = self.folder / f"scored-{name}"
        options = ["--no-generate"] if self.stage.scored_by == "text" else []
        if self.template:
            options += ["--template", self.template]
        data = ["--data", self.dataset.scored_file, "--out", out]
        self.tuneyard("eval", self.stage.scored_by, *words, *data, *options)
        (predictions,) = out.glob("*/*/predictions.jsonl")
        rows = [json.loads(line) for line in predictions.read_text().splitlines()]
        key, figure = self.figure(rows)
        np.testing.assert_allclose(figure, self.evaluated[key], rtol=self.tolerance, err_msg=key)
        (column,) = {"loss", "chosen_logp", "answer_logp"} & rows[0].keys()
        return [row[column] for row in rows]

    def figure(self, rows: list[dict[str, Any]]) -> tuple[str, float]:
        """A figure that LLaMA-Factory logs of an evaluation, and the same of our predictions."""
        if self.stage_name == "pt":  # transformers also counts the first token, which nothing predicts
            return "eval_loss", statistics.fmean(row["loss"] / (row["tokens"] + 1) for row in rows)
        if self.stage.scored_by == "text":
            return "eval_loss", statistics.fmean(row["loss"] / row["tokens"] for row in rows)
        if self.stage_name == "kto":
            desirable = [row["answer_logp"] for row in rows if row["expected_output"] == "desirable"]
            return "eval_logps/chosen", statistics.fmean(desirable)
        if "pref_loss" in self.stage.settings:  # orpo and simpo compare means over tokens
            means = [row["chosen_logp"] / row["chosen_tokens"] for row in rows]
            return "eval_logps/chosen", statistics.fmean(means)
        return "eval_logps/chosen", statistics.fmean(row["chosen_logp"] for row in rows)
