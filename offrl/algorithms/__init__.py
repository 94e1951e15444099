"""The algorithms, one file each: config, networks, loss."""
