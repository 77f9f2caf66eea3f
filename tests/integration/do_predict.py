"""python -m tests.integration.do_predict RECIPE.yaml: LLaMA-Factory's own do_predict, without its figures.

It writes generated_predictions.jsonl. Its ROUGE needs the package rouge_chinese, which is not installed here.
"""

import sys
from unittest.mock import patch

from llamafactory.cli import main
from llamafactory.hparams import parser
from llamafactory.train.sft import workflow


def no_figures(**_: object) -> None:
    """Stand in for ComputeSimilarity: without a function of figures, the trainer computes none."""


if __name__ == "__main__":
    sys.argv = ["llamafactory-cli", "train", sys.argv[1]]
    with patch.object(workflow, "ComputeSimilarity", no_figures), patch.object(parser, "check_version"):
        main()
