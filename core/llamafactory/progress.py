"""Where progress about LLaMA-Factory's work is shown. In a fork of child.py it reaches the asking process."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

stream: "SupportsWrite[str]" = sys.stderr
