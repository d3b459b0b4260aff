"""Storage engines behind three ports."""
