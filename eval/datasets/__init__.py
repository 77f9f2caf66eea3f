"""What a model is prompted with: datasets and their prompts, benchmarks, clusters of examples."""
