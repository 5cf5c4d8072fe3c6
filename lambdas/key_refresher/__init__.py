"""Keeps the public keys of trusted issuers current, so that no reader's request waits for them."""
