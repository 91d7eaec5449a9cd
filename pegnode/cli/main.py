"""`peg`: the command line's root. It imports next to nothing, so that an interrupt finds it ready."""

import signal
import sys


def main() -> None:
    """Run the command line. An interrupt while the commands are imported ends it as quietly as one later."""
    try:
        from pegnode.cli.commands import command_line

        peg = command_line(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    peg()


if __name__ == "__main__":
    main()
