"""Object storage: bytes under keys, with conditional writes. Knows no channel."""
