"""Measures everything, which takes about three minutes, and prints the figures with the machine that they are of."""

import argparse
import time

from bench import batches, federation, micro, sync, withdrawals
from bench.report import print_machine


def main() -> None:
    """Run every measurement."""
    argparse.ArgumentParser(prog="python -m bench", description=__doc__).parse_args()
    began = time.monotonic()
    print_machine()
    micro.run()
    batches.run()
    sync.run()
    federation.run()
    withdrawals.run()
    print(f"\ntook {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
