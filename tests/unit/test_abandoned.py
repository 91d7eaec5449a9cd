"""Branches that L1 abandoned, as records tell of them: what lay below an anchor while it counted."""

from bridge.abandoned import AbandonedBranches
from bridge.bitcoin.hashes import sha256
from bridge.bitcoin.identifiers import BlockHash
from bridge.evidence import L1BlockFact
from bridge.records import AbandonedBlock, Rebase
from bridge.state import Anchor


def block(branch: str, height: int) -> Anchor:
    """A block of one of several branches."""
    return Anchor(height, BlockHash(sha256(f"{branch} {height}".encode())))


def rebase(fork: Anchor, branch: str, up_to: int, new_anchor: Anchor) -> Rebase:
    """Away from a branch, whose blocks have as many transactions as their height says."""
    blocks = tuple(AbandonedBlock(block(branch, height).hash, height) for height in range(fork.height + 1, up_to + 1))
    return Rebase(fork, blocks, new_anchor)


def fact(branch: str, height: int) -> L1BlockFact:
    return L1BlockFact(height, height)


def test_block_that_no_rebase_names_has_the_active_chain_alone_below_it() -> None:
    branches = AbandonedBranches([rebase(block("a", 100), "b", 110, block("a", 120))])
    for anchor in (block("a", 120), block("a", 100), block("b", 111), Anchor(109, block("b", 110).hash)):
        assert not branches.knows(anchor)
        ancestry = branches.ancestry(anchor)
        assert (ancestry.root, dict(ancestry.abandoned)) == (anchor, {})


def test_blocks_of_an_abandoned_branch_lie_below_its_anchors_down_to_the_fork() -> None:
    branches = AbandonedBranches([rebase(block("a", 100), "b", 110, block("a", 120))])
    assert branches.knows(block("b", 105))
    ancestry = branches.ancestry(block("b", 105))
    assert ancestry.root == block("a", 100)
    assert ancestry.fact(block("b", 101).hash, None) == fact("b", 101)
    assert ancestry.fact(block("b", 105).hash, None) == fact("b", 105)
    assert ancestry.fact(block("b", 106).hash, None) is None, "above the anchor"
    assert ancestry.fact(block("a", 100).hash, fact("a", 100)) == fact("a", 100)
    assert ancestry.fact(block("a", 101).hash, fact("a", 101)) is None, "beside it, on the branch that won"


def test_fork_that_a_later_reorg_abandoned_leads_on_along_its_branch() -> None:
    first = rebase(block("b", 103), "c", 110, block("b", 120))
    second = rebase(block("a", 100), "b", 120, block("a", 130))
    branches = AbandonedBranches([first, second])
    old, between = branches.ancestry(block("c", 110)), branches.ancestry(block("b", 120))
    assert old.root == between.root == block("a", 100)
    assert old.fact(block("b", 103).hash, None) == fact("b", 103)
    assert old.fact(block("b", 104).hash, None) is None, "above the first fork, on the branch that won then"
    assert between.fact(block("b", 104).hash, None) == fact("b", 104)
    assert between.fact(block("c", 104).hash, None) is None
    assert between.fact(block("a", 101).hash, fact("a", 101)) is None
