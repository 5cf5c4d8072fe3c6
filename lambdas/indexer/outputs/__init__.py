"""What clients and people read, made from a commit of the tree."""
