"""matyan: a self-hosted tracker for machine-learning experiments."""
