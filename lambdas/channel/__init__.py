"""What all functions and the command agree on: names, keys, artifact kinds, errors. Standard library only."""
