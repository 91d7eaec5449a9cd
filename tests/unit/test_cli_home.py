"""What a command works on: the local federation, or a node that was named."""

from pathlib import Path

import pytest

from pegnode.cli.home import Home
from pegnode.local_federation import LocalFederationError, LocalReason


def test_home_without_a_federation_says_that_a_node_may_be_named(tmp_path: Path) -> None:
    """A member's machine has none, and needs none."""
    with pytest.raises(LocalFederationError) as caught:
        Home(tmp_path).config()
    assert caught.value.reason is LocalReason.ABSENT
    assert caught.value.detail.endswith(
        f"make one with: peg up --dir {tmp_path}; or name a node: --node FILE.toml, or PEGNODE_NODE"
    )
