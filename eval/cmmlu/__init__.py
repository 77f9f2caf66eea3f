"""Multiple choice in Chinese."""
