"""Errors of Pillow, for every command that opens images."""

import struct

BROKEN_IMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error)
"""What Pillow's decoders raise at a file that is broken or cut off."""
