"""Each finding of reading and judging has a sentence with its place and figures, in both languages."""

from pathlib import Path

import pytest

from tests.messages import printed
from tuneyard.core.language.message import Message, translated
from tuneyard.core.language.reader import in_language
from tuneyard.core.training.metrics import ACCURACY, METRICS
from tuneyard.eval.judge import findings as judged
from tuneyard.eval.report.findings import print_finding, sentence
from tuneyard.eval.runs import findings as read

LOSS = METRICS["loss"]
EXAMPLES: list[tuple[read.RunFinding, str]] = [
    (read.HeldOutHalf(Path("out/s")), "note: out/s; held-out half"),
    (read.ChosenSetting(Path("out/s")), "note: out/s; table.md"),
    (read.DecidingScore(Path("a.jsonl"), "em", ("f1", "bleu")), "note: a.jsonl; em; --metric; f1, bleu"),
    (read.FailedTraining("s/rank-4"), "s/rank-4; failed"),
    (read.UnfinishedRun(Path("out/a/s")), "out/a/s; --resume"),
    (read.ChosenOnTheseRows(("out/a", "out/b")), "out/a, out/b; held-out/"),
    (
        read.TrainedOnExamples("a", "s", 1200, 1200, False, ("t.json",), ACCURACY),
        "s: a; 1,200 of these 1,200 examples (t.json); this is training accuracy",
    ),
    (read.TrainedOnExamples("a", "", 3, 9, True, (), ACCURACY), "up to 3 of these 9 examples; no record"),
    (read.TrainedOnExamples("a", "", 3, 9, False, (), LOSS), "its loss on them is that of training"),
    (
        read.ScoredTrainingRows("a", "s", 5, 9, ("d", "e"), drawn=True, held_out=("h",)),
        "s: a; d and e; 5 of these 9 examples; val_size; --dataset h",
    ),
    (read.TrainedOnSameName("a", "s", "d/x"), "s: a; d/x"),
    (read.CheckpointChosenHere("a", "s", "d/x"), "s: a; d/x; score others"),
    (read.TrainingNotChecked("a", "no record"), "a: ; no record"),
    (judged.TrainingNotRecorded(("a", "b")), "a, b"),
    (judged.UnnamedData(2, 3, "a.csv"), "2 of 3 runs; a.csv"),
    (judged.FewClusters("s", 4, 6), "s: fewer than 6 clusters (4 here)"),
    (judged.DifferentQuestions(("a/s", "base/s"), "7"), "a/s and base/s; row 7"),
    (
        judged.DifferentSettings(("a", "b", "base"), (("dtype", "bf16", "fp32"), ("template", "x", None))),
        'a, b and base; dtype "bf16" and "fp32"; template "x" and null',
    ),
    (judged.WorstValues("a", "s", "rougeL", 0.0), "a: rougeL is 0; s"),
    (judged.RefusedRows("a", "s", tuple("123456"), 2000), "a: ; 6 of 2,000 rows of s; (1, 2, 3, 4, 5, …)"),
    (judged.NoCorrectAnswer("a", "s", "yes", "x" * 300), 'a: ; s; expected "yes"; …'),
    (judged.UnexpectedAnswers("a", 11, 20, ("yes!", "no!")), 'a: 11 of 20; "yes!", "no!"'),
    (
        judged.EqualLogProbabilities("s", "a", "base", ("saves/a",)),
        "s: ; a and base; tuneyard adapter show saves/a; ΔW = 0",
    ),
    (judged.EqualLogProbabilities("s", "a", "b", ()), "tuneyard adapter show ADAPTER"),
    (judged.FewSeeds("rte", 2), "rte: ; 2 seeds; five"),
    (judged.RareLabels("s", ("maybe", "no"), 5), "s: fewer than 5 examples of maybe, no"),
    (judged.SkewedDifference("s"), "s: ; skewed"),
]


def test_every_kind_has_an_example_here() -> None:
    kinds = set()
    for module in (read, judged):
        for kind in vars(module).values():
            if isinstance(kind, type) and issubclass(kind, read.RunFinding):
                kinds.add(kind)
    assert {type(finding) for finding, _facts in EXAMPLES} == kinds - {read.RunFinding, read.Note}


@pytest.mark.parametrize(("finding", "facts"), EXAMPLES)
def test_a_finding_has_a_sentence_in_both_languages(finding: read.RunFinding, facts: str) -> None:
    text = sentence(finding)
    printed(text, facts)
    assert isinstance(text, Message) and len(text) < 400
    with in_language("zh"):
        assert translated(text) != str(text)


def test_a_kind_without_a_sentence_is_an_error_of_the_program() -> None:
    class Unknown(read.RunFinding):
        pass

    with pytest.raises(TypeError, match="Unknown"):
        sentence(Unknown())


def test_a_note_is_no_warning_and_a_name_of_several_lines_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    print_finding(read.HeldOutHalf(Path("s")))
    print_finding(judged.SkewedDifference("a\n\x1b[31mb"))
    note, warning = capsys.readouterr().err.splitlines()
    assert note.startswith("note: s: ") and warning.startswith("warning: a")
