"""Who may read what: the access document, its changes, and decisions about requests. Standard library only."""
