"""How cards, templates and agreements are shown: what people read to each other before they trust them."""

from pathlib import Path

from pegnode.cli.terminal import coins, out, print_fields
from pegnode.setup.assembly import Assembly
from pegnode.setup.card import Card, MemberCard
from pegnode.setup.template import AgreedTemplate
from pegnode.wording import time_text


def print_card(card: Card, path: Path) -> None:
    """A card that was read from, or written to, a file."""
    if isinstance(card, MemberCard):
        print_fields(
            {
                "member": card.name,
                "fingerprint": card.fingerprint,
                "address": card.address,
                "peer id": card.peer_id,
                "vote key": card.vote_key_hex,
                "custody key": card.custody_key_hex,
                "file": path,
            }
        )
    else:
        print_fields(
            {
                "recovery": card.name,
                "fingerprint": card.fingerprint,
                "recovery key": card.recovery_key_hex,
                "file": path,
            }
        )


def print_template(template: AgreedTemplate, path: Path) -> None:
    """A completed template that was read from, or written to, a file."""
    agreed = template.agreed
    print_fields(
        {
            "template": f"{template.parameters.network}, {template.parameters.member_count} members",
            "fingerprint": template.fingerprint,
            "anchor": f"{agreed.anchor_height} {agreed.anchor_hash_hex}",
            "time": time_text(agreed.time_ms),
            **{f"recovery {index}": key for index, key in enumerate(agreed.recovery_keys_hex, 1)},
            "file": path,
        }
    )


def print_agreement(assembly: Assembly, template: AgreedTemplate, anchor_depth: int | None) -> None:
    """What a genesis binds its members to, in a few lines. anchor_depth: confirmations seen; None for unchecked."""
    genesis = assembly.genesis
    peg = genesis.peg
    seen = "not checked on a Bitcoin node" if anchor_depth is None else f"{anchor_depth} confirmations on your node"
    count = len(assembly.members)
    holders = {card.recovery_key_hex: card.name for card in assembly.recovery}
    print_fields(
        {
            "chain id": genesis.chain_id.hex(),
            "template": template.fingerprint,
            "network": genesis.l1.network,
            "anchor": f"{genesis.l1.anchor_height} {genesis.l1.anchor_hash_hex}, {seen}",
            "time": time_text(genesis.time_ms),
            "deposits": f"after {peg.confirmations} confirmations, at least {coins(peg.min_deposit_sats)}",
            "withdrawals": f"{coins(peg.min_withdrawal_sats)} at least and {coins(peg.max_withdrawal_sats)} at most,"
            f" of {coins(peg.max_peg_sats)} in the reserve",
            "members": f"{count}, {count - (count - 1) // 3} of which decide",
        }
    )
    for card in assembly.members:
        out.print(f"  {card.name}: card {card.fingerprint}, at {card.address}", markup=False)
    keys = genesis.recovery_keys_hex
    lock = f"for what lies still for {peg.recovery_timelock_blocks} L1 blocks"
    out.print(f"recovery     {peg.recovery_quorum} of {len(keys)} keys, {lock}", markup=False)
    for key in keys:
        out.print(f"  {key} {holders.get(key, '(no card seen)')}", markup=False)
