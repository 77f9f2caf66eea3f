"""Commands that look at a mailed folder (tests/safety/mailed_folder.py), and the others."""

CASES: dict[str, str] = {
    "adapter export": "adapter export adapter --to hub --repo org/a --dry-run",
    "adapter extract": "adapter extract tuned --base model --rank 2 --out OUT",
    "adapter fuse": "adapter fuse adapter --base model --out OUT",
    "adapter merge": "adapter merge adapter=0.5 other=0.5 --out OUT",
    "adapter rename": "adapter rename adapter --base model --out OUT",
    "adapter serve": "adapter serve adapter --base model --dry-run",
    "adapter show": "adapter show adapter other",
    "data check": "data check qa --source a.jsonl",
    "data compile": "data compile qa --source a.jsonl --out OUT",
    "data diff": "data diff dataset_info/a.json b.json",
    "data init": "data init a.jsonl --out OUT/spec.yaml",
    "data list": "data list",
    "data remove": "data remove nothing",
    "data restore": "data restore nothing",
    "data show": "data show qa --source a.jsonl",
    "data stats": "data stats dataset_info/a.json",
    "data verify": "data verify a",
    "data view": "data view a --model model --template qwen --out OUT",
    "eval ab ask": "eval ab ask --model model --adapter a=adapter --max-new-tokens 2 --limit 2 --dataset a "
    "--out OUT",
    "eval ab tally": "eval ab tally sheet.csv --key key.json --out OUT",
    "eval chat": "eval chat --model model --once hello --max-new-tokens 2",
    "eval compare": "eval compare log.csv --out OUT",
    "eval prove": "eval prove --model model --template qwen --limit 2 --dataset a --out OUT",
    "eval cmmlu": "eval cmmlu --model model --limit 2 --data exam --shots 1 --out OUT",
    "eval defect": "eval defect --model model --limit 2 --data reports.jsonl --max-new-tokens 2 --out OUT",
    "eval dialogue": "eval dialogue --model model --limit 2 --data talks.jsonl --max-new-tokens 2 --out OUT",
    "eval tools": "eval tools --model model --template qwen --limit 2 --data calls.jsonl --max-new-tokens 2 "
    "--out OUT",
    "eval sweep": "eval sweep --model model --adapter a=adapter --adapter b=other --dataset a --out OUT",
    "eval nli": "eval nli --model model --adapter a=adapter --limit 2 --dataset a --out OUT",
    "eval preference": "eval preference --model model --limit 2 --data pairs.json --out OUT",
    "eval qa": "eval qa --model model --limit 2 --dataset a --max-new-tokens 2 --out OUT",
    "eval suite": "eval suite suite.yaml --model model --out OUT",
    "eval text": "eval text --model model --limit 2 --dataset a --out OUT",
    "recipe best": "recipe best OUT-trained",
    "recipe check": "recipe check r.yaml",
    "recipe new": "recipe new --dataset a --model model --for cpu --out OUT/r.yaml",
    "recipe plan": "recipe plan r.yaml --for A100-80",
    "recipe sweep": "recipe sweep r.yaml lora_rank=4,8 --metric train_loss --out OUT --dry-run",
    "recipe train": "recipe train r.yaml output_dir=OUT",
}
"""By command: its words in the mailed folder. It ends with exit code 0, and may write below OUT alone."""
CODES = {"adapter rename": 2, "data remove": 2, "data restore": 2, "data diff": 1, "eval prove": 1}
"""Exit codes that are not 0: nothing to rename, no dataset to remove, differences, unequal prompts."""
NO_FILES = {"demo", "doctor", "recipe base"}
"""Commands that read no file of a mailed folder."""
