"""tuneyard data verify NAME: compiled files as LLaMA-Factory reads them and learns from them."""
