"""Other libraries, each in an environment of its own and run by a script that imports nothing of offrl."""
