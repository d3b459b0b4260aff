"""Runs: metadata, params, listing."""
