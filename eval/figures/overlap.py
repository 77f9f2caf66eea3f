"""ROUGE and BLEU of generated answers against their references, without thoughts."""

from tuneyard.eval.figures import Figure, metric_over_rows
from tuneyard.eval.figures.answers import cut_thought
from tuneyard.eval.figures.text import CHARACTERS, ROUGES, bleu, bleu_parts, rouge
from tuneyard.eval.statistics.rates import Mean, Rows, groups_of, mean_of

NEEDS = ("reference", "prediction")
OPTIONS = ("tokenizer",)
"""How texts are split into words."""


def _texts(rows: Rows, name: str) -> list[str]:
    return [cut_thought(str(row[name])) for row in rows]


def _of_corpus(rows: Rows, tokenizer: str = CHARACTERS) -> Mean:
    references, predictions = (_texts(rows, name) for name in NEEDS)
    return bleu(references, predictions, groups_of(rows), tokenizer)[0]


@metric_over_rows("bleu", needs=NEEDS, options=OPTIONS, of_all=_of_corpus, by_command=True)
def bleu_by_row(rows: Rows, tokenizer: str = CHARACTERS) -> list[float]:
    """Contribution of each row to corpus BLEU (0-100)."""
    references, predictions = (_texts(rows, name) for name in NEEDS)
    return bleu_parts(references, predictions, tokenizer)


def _rouge(name: str) -> Figure:
    """The F-measure (0-1) of one ROUGE, row by row."""

    def of_rows(rows: Rows, tokenizer: str = CHARACTERS) -> list[float]:
        references, predictions = (_texts(rows, field) for field in NEEDS)
        return rouge(references, predictions, tokenizer, [name])[name]

    def of_all(rows: Rows, tokenizer: str = CHARACTERS) -> Mean:
        return mean_of(of_rows(rows, tokenizer), groups_of(rows))

    return metric_over_rows(name, needs=NEEDS, options=OPTIONS, of_all=of_all, by_command=True)(of_rows)


rouge1, rouge2, rouge_l = map(_rouge, ROUGES)
