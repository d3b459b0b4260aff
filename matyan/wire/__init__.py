"""Bytes that leave the process."""
