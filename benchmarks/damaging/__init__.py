"""What `python -m benchmarks damages` is made of: ways to damage a file, the files, and the commands that use them."""
