"""The fairway command."""
