"""python -m tests.integration.weighted_losses FOLDER MODEL: losses of LLaMA-Factory, plain and weighted.

One process for all runs. Writes losses.json: plain (LLaMA-Factory as it is), ones (our trainer, all weights
1), weighted (answers weigh 5), reference (the weighted loss of step 1, worked out without any trainer).
"""

import sys
from pathlib import Path

from tests.json_files import read_json, write_json

ROWS = 24
WEIGHTS = "rules: [{words: ['yes', 'no'], weight: 5.0}]\n"
BATCH, GATHERED = 2, 2


def rows() -> list[dict[str, str]]:
    answers = ["yes", "no", "yes, that is so", "no"]
    return [{"instruction": f"Is {n} even?", "input": "", "output": answers[n % 4]} for n in range(ROWS)]


def settings(folder: Path, model: str, name: str, **changed: object) -> dict[str, object]:
    return {
        "model_name_or_path": model,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": 4,
        "dataset_dir": str(folder),
        "dataset": "even",
        "cutoff_len": 128,
        "output_dir": str(folder / name),
        "overwrite_output_dir": True,
        "overwrite_cache": True,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "per_device_train_batch_size": BATCH,
        "gradient_accumulation_steps": GATHERED,
        "learning_rate": 0.01,
        "max_steps": 4,
        "disable_shuffling": True,
        "use_cpu": True,
        **changed,
    }


def register(folder: Path) -> None:
    write_json(folder / "even.json", rows())
    write_json(folder / "dataset_info.json", {"even": {"file_name": "even.json"}})
    (folder / "weights.yaml").write_text(WEIGHTS)


def losses(folder: Path, name: str) -> list[float]:
    state = read_json(folder / name / "trainer_state.json")
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def reference(model: str) -> float:
    """Σ w·ce / Σ w of the first step, row by row: the words yes and no weigh 5, all else of the answer 1."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    total = weight = 0.0
    for row in rows()[: BATCH * GATHERED]:
        asked = [{"role": "user", "content": row["instruction"]}]
        prompt = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
        word, comma, rest = row["output"].partition(",")
        parts = [(word, 5.0), (f"{comma}{rest}<|im_end|>\n", 1.0)]
        ids, weights = list(prompt), [0.0] * len(prompt)
        for text, value in parts:
            new = tokenizer(text, add_special_tokens=False)["input_ids"]
            ids, weights = ids + new, weights + [value] * len(new)
        with torch.no_grad():
            scores = network(torch.tensor([ids])).logits[0].log_softmax(-1)
        total -= sum(weights[i] * scores[i - 1, ids[i]].item() for i in range(1, len(ids)))
        weight += sum(weights)
    return total / weight


def main(folder: Path, model: str) -> None:
    from llamafactory.train.sft import workflow
    from llamafactory.train.tuner import run_exp

    from tuneyard.core.llamafactory.prompt.token_weights import TokenWeights, read_weights
    from tuneyard.recipes.llamafactory.token_weights import install

    register(folder)
    parent = workflow.CustomSeq2SeqTrainer
    run_exp(settings(folder, model, "plain"))
    rules = {"ones": TokenWeights(1.0, ()), "weighted": read_weights(folder / "weights.yaml")}
    for name, weights in rules.items():
        workflow.CustomSeq2SeqTrainer = parent
        install(weights)
        run_exp(settings(folder, model, name))
    workflow.CustomSeq2SeqTrainer = parent
    found = {name: losses(folder, name) for name in ("plain", "ones", "weighted")}
    write_json(folder / "losses.json", {**found, "reference": reference(model)})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
