"""The HTTP toolkit: it knows no word of the domain."""
