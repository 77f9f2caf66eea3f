"""Area under the ROC curve, as the mean of a part for each row: so intervals and tests by row hold for it."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

AUC = "auc"


def auc_parts(scores: Sequence[float], positive: Sequence[bool]) -> list[float]:
    """Return a part for each row, of which the mean is the AUC (ties count half).

    The parts' variance is that of DeLong et al. 1988: a row moves the figure by the share of the other
    class that it is ranked right against. `ValueError` where a class has no row.
    """
    classes = {
        side: sorted(score for score, own in zip(scores, positive, strict=True) if own is side)
        for side in (True, False)
    }
    if not all(classes.values()):
        raise ValueError("found rows of one class, expected both")
    right = []
    for score, own in zip(scores, positive, strict=True):
        other = classes[not own]
        below = (bisect_left(other, score) + bisect_right(other, score)) / 2 / len(other)
        right.append(below if own else 1 - below)
    area = sum(share for share, own in zip(right, positive, strict=True) if own) / len(classes[True])
    return [
        area + len(scores) / len(classes[own]) * (share - area)
        for share, own in zip(right, positive, strict=True)
    ]
