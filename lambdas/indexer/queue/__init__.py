"""What one invocation does with the messages of the queue."""
