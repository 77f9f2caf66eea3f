"""`python -m compiler` is `tuneyard data`."""

from tuneyard.core.installation.start import start

start("tuneyard.compiler.cli")
