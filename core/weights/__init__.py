"""Tensors of safetensors files, adapters and base models, without torch."""
