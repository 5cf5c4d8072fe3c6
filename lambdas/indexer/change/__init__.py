"""From keys to a commit: inspect what is in the bucket, decide what it leads to, commit."""
