"""`python -m offrl` is the command `offrl`."""

from offrl.cli import main

if __name__ == "__main__":
    main(prog_name="offrl")
