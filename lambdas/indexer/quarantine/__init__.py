"""Where rejected uploads go, and who is notified of them."""
