"""How a model is prompted: transformers, vLLM, a server or GGUF, adapters beside it."""
