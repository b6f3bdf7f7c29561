"""What is happening now: figures, and predictions as they come."""
