"""From the bytes of an artifact to its record. Pure, but for reading the artifact's source."""
