"""What is in Redis: its keys, its scripts, and the operations on them. Sans IO."""
