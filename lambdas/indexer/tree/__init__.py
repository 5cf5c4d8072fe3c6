"""The tree of a subdir: shards, the shard index, cards and patches, and how they are read and committed."""
