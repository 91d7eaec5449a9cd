"""What several modules of unit tests begin with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pegnode.storage.store import ChainStore
from tests.support.stores import open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ChainStore]:
    """A chain's store that holds the genesis alone."""
    opened = open_store(tmp_path / "chain")
    yield opened
    opened.close()
