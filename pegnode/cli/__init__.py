"""The command line: `peg`."""
