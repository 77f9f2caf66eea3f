"""Whole conversations: the user's turns as they are given, the model's own answers between them."""

from collections.abc import Callable, Mapping, Sequence

from eval.backends.scorers import Fields, Generator, Messages
from eval.metrics.answers import cut_thought


class ConversationScorer:
    """Has a generator answer turn after turn, each on all that was said before."""

    def __init__(
        self,
        generator: Generator,
        talks: Mapping[int, Messages],
        fits: Callable[[Messages], bool],
        max_new_tokens: int,
    ) -> None:
        """Prepare for conversations by row, the data's own answers in them and the user's turn last.

        A talk in which `fits` is no longer true of what the model would have to read ends there.
        """
        self.generator, self.talks, self.fits, self.max_new_tokens = generator, talks, fits, max_new_tokens
        self.batches, self.refused = generator.plan(talks, max_new_tokens)

    def score(self, batch: Sequence[int]) -> list[Fields]:
        """Return the `transcript` of each row, thoughts left out, and whether it was `cut_short`."""
        turns = [questions(self.talks[row]) for row in batch]
        said: list[Messages] = [[] for _ in batch]
        ended = [False for _ in batch]
        for turn in range(max(map(len, turns))):
            now = []
            for n, asked in enumerate(turns):
                if turn < len(asked) and not ended[n]:
                    ended[n] = not self.fits([*said[n], *asked[turn]])
                    if not ended[n]:
                        said[n] += asked[turn]
                        now.append(n)
            answers = self.generator.generate([said[n] for n in now], self.max_new_tokens) if now else []
            for n, answer in zip(now, answers, strict=True):
                said[n].append({"role": "assistant", "content": cut_thought(answer)})
        return [{"transcript": s, "cut_short": e} for s, e in zip(said, ended, strict=True)]


def questions(talk: Messages) -> list[Messages]:
    """Return what stands before each answer: the user's turn, the first with the system's text."""
    parts: list[Messages] = [[]]
    for message in talk:
        if message["role"] == "assistant":
            parts.append([])
        else:
            parts[-1].append(message)
    return parts
