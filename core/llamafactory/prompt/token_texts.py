"""The text of each token of a sequence, so that the texts joined are the decoded sequence.

Several tokens may share a character, as a Chinese character or an emoji in a byte-level tokenizer. The last
of them has the character, the others have "".
"""

from collections.abc import Callable

from tuneyard.core.llamafactory.prompt import Ids

Decode = Callable[[Ids], str]
INCOMPLETE = "\ufffd"
"""Character that a tokenizer decodes bytes to that are no whole character."""
MOST_PARTS = 16
"""Tokens that may share one character. Bytes after that many are no text."""


class TokenTexts:
    """Decodes tokens one by one by a tokenizer's `decode`. It remembers their texts."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._text_by_id: dict[int, str] = {}

    def of(self, ids: Ids) -> list[str]:
        """The text of each token."""
        texts = self._token_by_token(ids)
        if "".join(texts) == self._decode(ids):
            return texts
        return self._by_context(ids)

    def _token_by_token(self, ids: Ids) -> list[str]:
        """Texts of tokens that a tokenizer decodes each by itself; tokens of one character together."""
        texts: list[str] = []
        position = 0
        while position < len(ids):
            text = self._text(ids[position])
            if INCOMPLETE not in text:
                texts.append(text)
                position += 1
                continue
            shared = self._sharing(ids[position : position + MOST_PARTS])
            texts += shared
            position += len(shared)
        return texts

    def _sharing(self, ids: Ids) -> list[str]:
        """Texts of the first tokens, up to the token that completes all characters begun before it."""
        texts: list[str] = []
        complete = ""
        for count in range(1, len(ids) + 1):
            decoded = self._decode(ids[:count])
            whole_part = decoded.rstrip(INCOMPLETE)
            texts.append(whole_part[len(complete) :])
            complete = max(complete, whole_part, key=len)
            if decoded == whole_part:
                return texts
        # These bytes are no text. Each token stays as the tokenizer shows it.
        return [self._text(ids[0])]

    def _by_context(self, ids: Ids) -> list[str]:
        """Texts of tokens whose text depends on the tokens before (a leading blank, in some tokenizers).

        A token's text is the difference between the decoded texts with and without it. The tokens of the
        last complete character are decoded with it, for their context.
        """
        texts: list[str] = []
        begin = 0  # of the context
        complete = 0  # tokens whose text is complete
        for count in range(1, len(ids) + 1):
            before = self._decode(ids[begin:complete])
            decoded = self._decode(ids[begin:count])
            is_last = count == len(ids)
            if decoded.endswith(INCOMPLETE) and count - complete < MOST_PARTS and not is_last:
                texts.append("")
                continue
            texts.append(decoded[len(before) :])
            begin, complete = complete, count
        return texts

    def _text(self, token: int) -> str:
        if token not in self._text_by_id:
            self._text_by_id[token] = self._decode([token])
        return self._text_by_id[token]
