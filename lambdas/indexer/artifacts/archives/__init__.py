"""Reads untrusted ``.conda`` and ``.tar.bz2`` archives: members of ``info/``, and hashes."""
