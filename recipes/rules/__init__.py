"""What is wrong with a recipe: settings, stage, the weights that it starts from, LLaMA-Factory's answer."""
