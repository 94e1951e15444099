"""A replay over data larger than the disk."""
