"""Cards and templates for tests: a federation that agrees on configs/local.toml."""

import random
from pathlib import Path

from bridge.bitcoin.identifiers import BlockHash
from bridge.state import Anchor
from federation.keystore import MemberSecrets, generate_member_secrets, generate_secret
from pegnode.setup.card import MemberCard, RecoveryCard
from pegnode.setup.template import Agreed, AgreedTemplate, completed

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
PARAMETERS = (CONFIGS / "local.toml").read_text()
ANCHOR = Anchor(101, BlockHash(b"\x07" * 32))
TIME_MS = 1_790_000_000_000
NAMES = ("alice", "bob", "carol", "dave")


def member_secrets(name: str) -> MemberSecrets:
    """A member's keys."""
    return generate_member_secrets(random.Random(name).randbytes)


def member_card(name: str, address: str | None = None, keys_of: str | None = None) -> MemberCard:
    """A member's card. keys_of: whose keys it has, if not its own."""
    place = f"/dns4/{name}.example/tcp/18900" if address is None else address
    return MemberCard.make(name, place, member_secrets(keys_of or name), random.Random(1).randbytes)


def member_cards() -> list[MemberCard]:
    """Those of NAMES."""
    return [member_card(name) for name in NAMES]


def recovery_card(number: int) -> RecoveryCard:
    """The card of a recovery key."""
    randomness = random.Random(f"recovery {number}").randbytes
    return RecoveryCard.make(f"vault-{number}", generate_secret(randomness), randomness)


def recovery_cards() -> list[RecoveryCard]:
    """Three of them."""
    return [recovery_card(number) for number in (1, 2, 3)]


def agreed() -> Agreed:
    """What is agreed besides the parameters."""
    keys = [bytes.fromhex(card.recovery_key_hex) for card in recovery_cards()]
    return Agreed.of(ANCHOR, keys, TIME_MS)


def template_text() -> str:
    """The completed template."""
    return completed(PARAMETERS, agreed())


def template(text: str | None = None) -> AgreedTemplate:
    """What it says."""
    return AgreedTemplate.parse(template_text() if text is None else text)
