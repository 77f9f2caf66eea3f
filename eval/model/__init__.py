"""How a model is asked: load, adapters beside it, prompts, choice scores, generated text."""
