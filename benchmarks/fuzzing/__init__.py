"""What `python -m benchmarks fuzz` is made of: mutations of valid files, and the readers that get them."""
