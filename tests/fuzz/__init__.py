"""Long runs of generated input; each is a command, and its short form a test."""
