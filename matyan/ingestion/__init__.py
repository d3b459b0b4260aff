"""From client frames to the store."""
