"""The command `offrl`, also as `python -m offrl`."""

import sys


def main() -> None:
    """Runs it; Ctrl-C while its modules are read ends it as at any later time."""
    try:
        from offrl.cli import main as command
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    command(prog_name="offrl")


if __name__ == "__main__":
    main()
