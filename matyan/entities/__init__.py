"""Experiments and tags with their runs."""
