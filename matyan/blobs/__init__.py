"""Files of runs: uploads, downloads, opaque addresses."""
