"""Shared by the commands that write: the output folder, the carried tokenizer, tensors saved in full."""
