"""Keeps the index of each subdir equal to the bucket, by change."""
