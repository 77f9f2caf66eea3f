"""python lm_eval_scores.py MODEL ADAPTERS DATA OUT [THREADS BATCH DTYPE]: the harness on our questions.

Run with the harness on PYTHONPATH. ADAPTERS are folders with commas between them, `-` is the base alone.
Writes the log-probability that each gives each label after each question, asked with its own chat templating,
and the seconds of scoring and of the whole process until then.
"""

import json
import sys
import time
from pathlib import Path

BEGAN = time.perf_counter()


def main(
    model: str,
    adapters: str,
    data: str,
    out: str,
    threads: str = "1",
    batch: str = "4",
    dtype: str = "float32",
) -> None:
    """Score all labels of the data after each of its questions."""
    import torch
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    torch.set_num_threads(int(threads))
    rows = json.loads(Path(data).read_text())
    labels = sorted({row["output"] for row in rows})
    rowwise, seconds = [], 0.0
    for adapter in adapters.split(","):
        peft = None if adapter == "-" else adapter
        lm = HFLM(model, peft=peft, dtype=dtype, device="cpu", batch_size=int(batch))
        texts = [lm.apply_chat_template([{"role": "user", "content": row["instruction"]}]) for row in rows]
        asked = [
            Instance("loglikelihood", {}, (text, label), i)
            for text in texts
            for i, label in enumerate(labels)
        ]
        scoring = time.perf_counter()
        found = lm.loglikelihood(asked, disable_tqdm=True)
        seconds += time.perf_counter() - scoring
        logs = [float(log) for log, _ in found]
        rowwise += [
            dict(zip(labels, logs[i : i + len(labels)], strict=True))
            for i in range(0, len(logs), len(labels))
        ]
    ended = time.perf_counter()
    told = {"rows": rowwise, "scoring_s": seconds, "process_s": ended - BEGAN}
    Path(out).write_text(json.dumps(told))


main(*sys.argv[1:])
