"""A busy machine is no failure: no deadline for a single example."""

from hypothesis import settings

settings.register_profile("steady", deadline=None)
settings.load_profile("steady")
