"""`split` of a local file: the rows that it takes, as `datasets` takes them, and values at which it stops."""

import pytest

from tests.json_files import write_json
from tests.messages import raises
from tuneyard.core.datasets import find_dataset
from tuneyard.core.datasets.split import rows_of_split, split_problem
from tuneyard.core.errors import ContentError

SPLITS = [
    "train", "train[:50%]", "train[50%:]", "train[:10]", "train[-3:]", "train[2:-2]",
    "train[:10]+train[-10:]",
    "train[:7%]", "train[3%:9%]", "train[-5%:]", "train[:500]", "train[5:2]", "train[:0]", "train[:]",
    "train[:1_0]", "train[:50%](closest)", "train[:50%](pct1_dropremainder)", "train [:2]",
    "train[:2] + train",
    "test", "validation", "train_sft", "full", "Train", "", "train[:200%]", "train[:0.5]", "train[1]",
    "train[:2](closest)", "train[:50%](up)", "train+test", "train[",
]  # fmt: skip


@pytest.mark.parametrize("records", [24, 199])
@pytest.mark.parametrize("split", SPLITS)
def test_rows_are_those_of_datasets(split, records):
    from datasets import ReadInstruction

    try:
        parts = ReadInstruction.from_spec(split).to_absolute({"train": records})
    except ValueError:
        if "pct1" not in split:  # it wants 100 records
            assert rows_of_split({"split": split}, records) is None
        return
    assert rows_of_split({"split": split}, records) == sum(max(0, part.to - part.from_) for part in parts)


@pytest.mark.parametrize("value", ["test", None, 5, ["train"], "train[:0.5]"])
def test_another_split_of_a_local_file_is_an_error(value):
    problem = split_problem("p", {"file_name": "a.json", "split": value})
    assert (problem.code, problem.field) == ("E405", "split")


@pytest.mark.parametrize(
    "entry",
    [
        {"file_name": "a.json"},
        {"file_name": "a.json", "split": "train[:5]"},
        {"hf_hub_url": "a/b", "split": "test"},
    ],
)
def test_a_split_of_a_hub_is_its_own(entry):
    assert split_problem("p", entry) is None


@pytest.mark.parametrize(
    "source", ["hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name"]
)
@pytest.mark.parametrize("lenient", [True, False])
def test_a_file_next_to_a_hub_is_never_trained(tmp_path, source, lenient):
    write_json(tmp_path / "a.json", [{"instruction": "q", "output": "a"}])
    write_json(tmp_path / "dataset_info.json", {"a": {"file_name": "a.json", source: "owner/name"}})
    with raises(ContentError, source, "owner/name", "a.json"):
        find_dataset("a", tmp_path, lenient=lenient)
