"""Which parts run together, in what order."""
