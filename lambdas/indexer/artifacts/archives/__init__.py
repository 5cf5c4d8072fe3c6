"""Reads ``.conda`` and ``.tar.bz2``, whatever an archive claims: members of ``info/``, and hashes."""
