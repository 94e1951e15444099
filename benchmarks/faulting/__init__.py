"""What `python -m benchmarks faults` is made of: operations, faults, and the judgement of what is there afterwards."""
