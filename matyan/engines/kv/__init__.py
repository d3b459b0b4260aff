"""Key-value engines."""
