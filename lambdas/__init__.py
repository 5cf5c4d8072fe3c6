"""What runs in the cloud: the indexer, the authorizer, and what they share."""
