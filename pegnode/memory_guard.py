"""Keep a process's memory, and the secrets in it, out of core dumps and other processes' sight.

What this does not do: swap may hold pages of the process, so swap belongs encrypted or off; Python can't wipe a value;
and root reads everything.
"""

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4
"""Source: Linux, include/uapi/linux/prctl.h."""


def forbid_memory_dumps() -> None:
    """No core dump of this process from now on; on Linux, no debugger either, unless it is root's.

    A limit of zero is not enough there: the kernel ignores it when cores are piped to a collector. Source: core(5).
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "can't forbid core dumps")
