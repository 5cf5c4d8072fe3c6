"""Turns the bytes of an artifact into its record. Pure, except that bytes come from an ``ArtifactSource``."""
