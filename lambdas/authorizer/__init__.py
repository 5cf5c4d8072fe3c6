"""Decides at the edge who may read what."""
