"""Shared by all packages: errors, files, language, LLaMA-Factory, weights, commands."""

if __name__ == "core":
    raise ImportError("import tuneyard.core: `core` is its folder (CONTRIBUTING.md, One name)")
