"""The one style of plots and pages."""
