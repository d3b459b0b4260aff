"""Services that run in threads: consumers and periodic jobs."""
