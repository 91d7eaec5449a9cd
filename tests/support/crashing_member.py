"""A member that shows all it has and then crashes: `python -m tests.support.crashing_member CONFIG FOLDER`.

It starts as any member does. When consensus would begin, it prints and logs every object of this project that it can
reach, writes those that let themselves be pickled to a file in FOLDER, leaves its cookie there, which else goes when it
ends, and raises an exception that quotes its state.
"""

import gc
import pickle
import shutil
import sys
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import structlog
import trio

from federation.keystore import MemberSecrets
from federation.passphrase import Passphrase
from pegnode import functionary
from pegnode.config import FunctionaryConfig, LogLevel
from pegnode.logs import start_logging
from pegnode.passphrase import read_passphrase_file
from pegnode.service.consensus_driver import ConsensusDriver

log = structlog.get_logger()

PROJECT: Final = ("bridge", "federation", "pegnode")
MOST_OBJECTS: Final = 200_000
LAST_WORDS: Final = "injected crash"


def reachable(roots: list[object]) -> Iterator[object]:
    """Every object of this project's classes that the roots lead to."""
    seen, waiting = {id(root) for root in roots}, deque(roots)
    while waiting and len(seen) < MOST_OBJECTS:
        item = waiting.popleft()
        if type(item).__module__.partition(".")[0] in PROJECT:
            yield item
        for referent in gc.get_referents(item):
            if id(referent) not in seen and not isinstance(referent, type) and not _is_module(referent):
                seen.add(id(referent))
                waiting.append(referent)


def _is_module(item: object) -> bool:
    return type(item).__name__ == "module" or (isinstance(item, dict) and "__builtins__" in item)


def shown(item: object) -> Iterator[str]:
    """All that anybody may print of an object without digging."""
    ways: list[Callable[[Any], object]] = [repr, str, format, vars]
    if isinstance(item, BaseException):
        ways.append(lambda error: error.args)
    for way in ways:
        try:
            yield str(way(item))
        except Exception as error:  # noqa: BLE001 -- whatever it is, its text is searched
            yield repr(error)


def pickled(item: object) -> bytes:
    """What a crash reporter that pickles would send."""
    try:
        return pickle.dumps(item)
    except Exception as error:  # noqa: BLE001 -- most can't be pickled
        return repr(error).encode()


def tell(items: list[object], pickles: Path) -> None:
    """Print all of them, pickle those that allow it, and log those that hold secrets."""
    with pickles.open("wb") as file:
        for item in items:
            print(*shown(item), sep="\n")
            file.write(pickled(item))
            if isinstance(item, MemberSecrets):
                log.error("secrets", secrets=item)
    print("kinds:", *sorted({type(item).__name__ for item in items}))


def main() -> None:
    """Run the member to its crash."""
    config = FunctionaryConfig.load(Path(sys.argv[1]))
    folder = Path(sys.argv[2])
    passphrase: Passphrase | None = read_passphrase_file(config.passphrase_file) if config.passphrase_file else None
    start_logging(LogLevel.DEBUG)

    async def crash(driver: ConsensusDriver) -> None:
        items = [config, passphrase, *reachable([driver, sys._getframe()])]
        tell(items, folder / "pickles")
        shutil.copy(config.cookie_path, folder)
        log.error("state", config=config, passphrase=passphrase, driver=driver, items=items[:100])
        try:
            raise ValueError(f"{config!r} {vars(driver)!r}")
        except ValueError as cause:
            raise RuntimeError(LAST_WORDS, config, driver, passphrase) from cause

    ConsensusDriver.run = crash  # type: ignore[assignment, method-assign]
    trio.run(functionary.run_functionary, config, strict_exception_groups=True)


if __name__ == "__main__":
    main()
