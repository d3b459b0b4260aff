"""Work in the background of stored data."""
