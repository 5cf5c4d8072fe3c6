"""Hypothesis's settings: no test depends on the speed of the machine."""

from hypothesis import settings

settings.register_profile("fairway", deadline=None)
settings.load_profile("fairway")
