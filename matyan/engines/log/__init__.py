"""Log engines."""
