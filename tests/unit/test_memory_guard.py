"""A guarded process leaves no core."""

import subprocess
import sys
from pathlib import Path

import pytest

from pegnode import memory_guard

SHOW = (
    "import ctypes, resource, sys\n"
    "from pegnode.memory_guard import forbid_memory_dumps\n"
    "if 'guard' in sys.argv: forbid_memory_dumps()\n"
    "PR_GET_DUMPABLE = 3\n"
    "print(ctypes.CDLL(None).prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), resource.getrlimit(resource.RLIMIT_CORE))\n"
)


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_guarded_process_is_not_dumpable() -> None:
    def shown(*arguments: str) -> str:
        root = Path(memory_guard.__file__).parents[1]
        return subprocess.check_output([sys.executable, "-c", SHOW, *arguments], text=True, cwd=root, timeout=60)

    assert shown("guard") == "0 (0, 0)\n"
    assert shown().startswith("1 ")
