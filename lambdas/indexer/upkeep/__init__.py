"""What keeps an index healthy: reconcile, rebuild, verify, collect garbage."""
