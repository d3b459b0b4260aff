"""How matyan uses a key-value store: the map of keys, records, offsets."""
