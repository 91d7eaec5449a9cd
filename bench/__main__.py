"""`python -m bench`."""

import time

from bench import batches, federation, micro, sync
from bench.report import print_machine


def main() -> None:
    """Run every measurement; it takes about a minute."""
    began = time.monotonic()
    print_machine()
    micro.run()
    batches.run()
    sync.run()
    federation.run()
    print(f"\ntook {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
