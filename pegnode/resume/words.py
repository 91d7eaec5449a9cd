"""What records say, in words and by themselves: blocks, coins and satoshis, as their bytes name them.      (pure)

The words are made of the record alone, so that everybody who has its bytes reads the same.
"""

from bridge.bitcoin.identifiers import hash_to_hex
from bridge.records import Deficit, Finding, FindingKind, Rebase, Record, Resume
from bridge.state import Anchor


def describe(record: Record) -> tuple[str, ...]:
    """A record in lines for people, the first of which is its title."""
    content = record.content
    lines = _deficit_lines(content) if isinstance(content, Deficit) else _resume_lines(content)
    bound = (
        f"it can enter a block of this chain whose anchor is L1 block {record.expires_at_anchor} or lower, and no other"
    )
    return (f"record {record.serial}: {lines[0]}", *lines[1:], bound)


def describe_finding(finding: Finding) -> str:
    """What was found, in one line."""
    match finding.kind:
        case FindingKind.ANCHOR_LEFT:
            return f"L1 left its block {block_text(finding.anchor)}, to which final blocks refer"
        case FindingKind.COIN_GONE:
            return f"the reserve's coin {finding.outpoint} is not unspent on L1, and no recorded batch spent it"
        case FindingKind.SECOND_VERSION:
            return f"L1 confirmed {hash_to_hex(finding.txid)}, a version of a batch that another version had settled"
        case FindingKind.BLOCK_REFUSED:
            return f"a quorum made {hash_to_hex(finding.block_hash)} final, which breaks a rule here"


def block_text(block: Anchor) -> str:
    """An L1 block."""
    return f"{block.height} {hash_to_hex(block.hash)}"


def sats_text(value_sats: int) -> str:
    """An amount in whole satoshis."""
    return f"{value_sats:,} sats"


def count_text(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _deficit_lines(deficit: Deficit) -> list[str]:
    count = count_text(len(deficit.lost), "coin")
    return [
        f"{sats_text(deficit.lost_sats)} of the reserve are lost, {count}",
        *(f"lost: {coin.outpoint}, {sats_text(coin.value_sats)}" for coin in deficit.lost),
        "what is lost leaves the reserves and becomes the peg's deficit, which donations repay first",
        "batches that spend what is lost are dead; withdrawals in them wait for another batch",
    ]


def _resume_lines(resume: Resume) -> list[str]:
    rebase = [] if resume.rebase is None else _rebase_lines(resume.rebase)
    return [
        "members that found no more than this work on L1 again",
        *(f"found: {describe_finding(finding)}" for finding in resume.findings),
        *rebase,
    ]


def _rebase_lines(rebase: Rebase) -> list[str]:
    return [
        f"the sidechain's anchor moves from L1 block {block_text(rebase.old_anchor)}",
        f"to L1 block {block_text(rebase.new_anchor)}",
        f"the two branches part above L1 block {block_text(rebase.fork)}",
        *(
            f"abandoned: L1 block {block_text(anchor)}, {count_text(block.n_tx, 'transaction')}"
            for anchor, block in zip(rebase.abandoned_anchors, rebase.abandoned, strict=True)
        ),
    ]
