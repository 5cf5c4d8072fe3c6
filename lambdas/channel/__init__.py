"""What both functions and the command agree on: names, access rules, errors. Standard library only."""
