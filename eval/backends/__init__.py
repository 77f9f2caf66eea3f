"""Prompt a model with transformers, vLLM, a server or a GGUF, with or without adapters."""
