"""Figures of free answers: exact match, partial match and token F1, overall and by type."""

from collections.abc import Mapping, Sequence

from eval.metrics.matching import commonest, token_f1
from eval.statistics.rates import Rows, accuracy_of, groups_of, hits, rate

SIMILAR = 0.7  # the 0.5B toolkit's: an answer matches partly above this


class Lexical:
    """The similarity of two texts by their letters: token F1, which sees no meaning in other words."""

    name = "lexical: token F1"

    def compare(self, expected: str, given: str) -> float:
        """Return the similarity of two texts, 0 to 1."""
        return token_f1(expected, given)


def qa_summary(rows: Rows, answers: Sequence[str]) -> dict[str, object]:
    """Return the figures of scored rows, and under `types` those of each type ({} if no row has one).

    `accuracy` and its `stderr` and `ci95` are the exact match's, as compare reads them; `majority` is
    what always giving the commonest of `answers`, the references of the whole set, would score.
    `ValueError` where there are no rows.
    """
    types: dict[str, list[Mapping[str, object]]] = {}
    for row in rows:
        if "type" in row:
            types.setdefault(str(row["type"]), []).append(row)
    return {
        **accuracy_of(hits(rows), groups_of(rows)),
        "majority": commonest(answers),
        "empty": sum("refused" not in row and not row["predicted_output"] for row in rows),
        **_figures(rows),
        "types": {name: _figures(own) for name, own in sorted(types.items())},
    }


def _figures(rows: Rows) -> dict[str, dict[str, object]]:
    """An exact match is a partial one too, whatever its similarity."""
    groups = groups_of(rows)
    exact = hits(rows)
    similar = [float(str(row["similarity"])) > SIMILAR for row in rows]
    return {
        "exact_match": rate(exact, groups),
        "partial_match": rate([one or other for one, other in zip(exact, similar, strict=True)], groups),
        "token_f1": rate([float(str(row["token_f1"])) for row in rows], groups),
    }
