"""The query language and searching."""
