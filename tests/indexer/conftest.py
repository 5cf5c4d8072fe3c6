"""How Hypothesis runs here: no test depends on how fast the machine is."""

from hypothesis import settings

settings.register_profile("fairway", deadline=None)
settings.load_profile("fairway")
