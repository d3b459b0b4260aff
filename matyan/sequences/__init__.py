"""Sequences: ordered points or objects of one name and context in a run."""
