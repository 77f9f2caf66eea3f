"""Loss of the expected answers, per token."""

from tuneyard.eval.figures import metric_over_rows, number_in
from tuneyard.eval.statistics.rates import LOSS, Mean, Rows, groups_of, loss_of


def _over_all_tokens(rows: Rows) -> Mean:
    losses = [number_in(row, "loss") for row in rows]
    tokens = [number_in(row, "tokens") for row in rows]
    return loss_of(losses, tokens, groups_of(rows))


@metric_over_rows(LOSS, needs=("loss", "tokens"), of_all=_over_all_tokens, weight="tokens", by_command=True)
def eval_loss(rows: Rows) -> list[float | None]:
    """Loss per token of each row, in nats. None for a row without tokens."""
    losses: list[float | None] = []
    for row in rows:
        loss, tokens = number_in(row, "loss"), number_in(row, "tokens")
        losses.append(loss / tokens if tokens else None)
    return losses
