"""For how many of 30 real files of many kinds init's first proposal is right; docs/init.md has the figure.

Right is: the shape and the columns that a person chose by looking at it, and a compile of the whole file
that finds no problem, or only rows that are themselves bad (a blank text, no answer).
"""

import re
import tempfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.real_data import real_path
from tuneyard.compiler.init.command import propose
from tuneyard.compiler.spec.load import load_spec
from tuneyard.core.errors import TuneyardError

PAIRS = "Pairs of texts with a judgement"
ASKED = "Questions and answers"
CHOICES = "Questions with choices"
CLASS = "Texts with a class"
TALK = "Conversations"
PLAIN = "Plain text for pretraining"
ALPACA = ("instruction", "output", "input")
FILES: dict[str, tuple[str, tuple[str, ...]]] = {
    "rte/train.tsv": (PAIRS, ("sentence1", "sentence2", "label")),
    "rte/parquet/train.parquet": (PAIRS, ("sentence1", "sentence2", "label")),
    "rte/superglue/train.jsonl": (PAIRS, ("premise", "hypothesis", "label")),
    "mnli/train_8999.json": (PAIRS, ("text_a", "text_b", "label")),
    "mnli/llmsknow_mnli_train.csv": (ASKED, ("Question", "Answer")),
    "mnli/kshot_12col/16-13.train.tsv": (PAIRS, ("sentence1", "sentence2", "gold_label")),
    "ocnli/train.3k.json": (PAIRS, ("sentence1", "sentence2", "label")),
    "io/alpaca_data-0-3252.zh.json": (ASKED, ALPACA),
    "io/belle_1k.json": (ASKED, ALPACA),
    "io/self_instruct_seed_tasks.jsonl": (ASKED, ("instruction", "instances.0.output", "instances.0.input")),
    "sharegpt/sharegpt_zh_1K_format.jsonl": (TALK, ("conversations",)),
    "sharegpt/fastchat_dummy_conversation.json": (TALK, ("conversations",)),
    "qa/gsm8k_test.jsonl": (ASKED, ("question", "answer")),
    "qa/medical_zh_qa_300.derived.json": (ASKED, ("question", "answer")),
    "qa/pubmedqa_ori_pqal.json": (ASKED, ("QUESTION", "LONG_ANSWER", "CONTEXTS")),
    "qa/insuranceqa_valid_questions.txt": (CLASS, ("its third field", "its second")),
    "pr/my_test_dataset_2k.parquet": (ASKED, ("prompt", "response")),
    "cmmlu/test/anatomy.csv": (CHOICES, ("Question", "A", "B", "C", "D", "Answer")),
    "cmmlu/dev": (CHOICES, ("Question", "A", "B", "C", "D", "Answer")),
    "defect/openrepair_mobifix.csv": (CLASS, ("problem", "fault_type")),
    "defect/ict_fault.csv": (CLASS, ("问题现象", "异常类型")),
    "defect/ict_split_train.csv": (CLASS, ("问题现象", "异常类型")),
    "defect/raw/ict_00.json": (ASKED, ("input.task", "output.judgement", "input.event")),
    "odd/no_header.tsv": (PAIRS, ("premise", "hypothesis", "label")),
    "lf/data/alpaca_en_demo.json": (ASKED, ALPACA),
    "lf/data/c4_demo.jsonl": (PLAIN, ("text",)),
    "lf/data/wiki_demo.txt": (PLAIN, ("text",)),
    "lf/data/glaive_toolcall_zh_demo.json": (TALK, ("conversations", "tools")),
    "lf/data/dpo_zh_demo.json": (TALK, ("conversations", "chosen", "rejected")),
    "lf/data/mllm_demo.json": (TALK, ("messages", "images")),
}


def is_right(path: Path, about: str, columns: tuple[str, ...]) -> bool:
    """Whether the first proposal has the shape and the columns, and reads the file."""
    try:
        text, report, _ = propose(path)
    except TuneyardError:
        return False
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mine.yaml"
        file.write_text(text, encoding="utf-8")
        spec = load_spec(str(file))
    named = {name.lower() for column in spec.columns for name in column.names}
    fails = re.search(r"^tried on the whole file: problems .* (E\d+)", report, re.M)
    return (
        spec.about == about
        and named >= {name.lower() for name in columns}
        and (not fails or fails[1] in ("E106", "E107"))
    )


@pytest.mark.slow
def test_the_first_proposal_for_thirty_real_files() -> None:
    paths = {name: real_path(name) for name in FILES}
    assert len(FILES) == 30
    wrong = {name for name, expected in FILES.items() if not is_right(paths[name], *expected)}
    print(
        f"right for {len(FILES) - len(wrong)} of {len(FILES)}; not for {', '.join(sorted(wrong)) or 'none'}"
    )
    page = (ROOT / "docs/init.md").read_text(encoding="utf-8")
    said = re.search(r"right for (\d+) of 30", page)
    assert said and len(FILES) - len(wrong) >= int(said[1]), wrong
