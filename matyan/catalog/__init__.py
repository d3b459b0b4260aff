"""Experiments, tags and other named records."""
