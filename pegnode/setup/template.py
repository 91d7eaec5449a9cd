"""The template: all that the members of a new federation agree on before their cards make it a genesis. (pure)

One person completes it, from a file of parameters such as configs/federation-15.toml, and gives it to everybody. What
is added stands in one section:

    [agreed]
    time_ms = 1790000000000         # of block 0
    anchor_height = 840000          # the L1 block from which the chain counts
    anchor_hash_hex = "0000…"
    recovery_keys_hex = ["…", "…"]

Nobody's clock, and nobody's Bitcoin node, adds anything later. So the same template and the same cards make the same
genesis on every machine. Comments and layout are free: the digest that people compare is of the values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import msgspec

from bridge.bitcoin.curve import is_valid_x_only, x_only
from bridge.bitcoin.hashes import sha256, tagged_hash
from bridge.bitcoin.identifiers import BlockHash, hash_from_hex, hash_to_hex
from bridge.state import Anchor
from pegnode.genesis import U32, Genesis, Hex32, MemberSection, Template, TimeMs, parse_template
from pegnode.net.address import peer_id_from_secret
from pegnode.options.errors import locating
from pegnode.setup.card import FINGERPRINT_SIZE, grouped
from pegnode.setup.errors import SetupReason, SetupRefused
from pegnode.wording import time_text

SECTION = "agreed"
_HEADING = (
    "# Completed by `peg federation template`: the same for every member, to the last digit. Change nothing here."
)


class Agreed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a completed template has besides parameters. time_ms: of block 0, milliseconds since 1970.

    anchor_hash_hex: as Bitcoin shows it, reversed.  recovery_keys_hex: x-only keys, in ascending order.
    """

    time_ms: TimeMs
    anchor_height: U32
    anchor_hash_hex: Hex32
    recovery_keys_hex: tuple[Hex32, ...]

    @classmethod
    def of(cls, anchor: Anchor, recovery_keys: Sequence[bytes], time_ms: int) -> Self:
        """These values, in the template's form. recovery_keys: x-only, 32 bytes each, in any order."""
        return cls(
            time_ms=time_ms,
            anchor_height=anchor.height,
            anchor_hash_hex=hash_to_hex(anchor.hash),
            recovery_keys_hex=tuple(sorted(key.hex() for key in recovery_keys)),
        )

    @property
    def anchor(self) -> Anchor:
        """The L1 block from which the chain counts."""
        return Anchor(self.anchor_height, BlockHash(hash_from_hex(self.anchor_hash_hex)))

    def validate(self) -> None:
        """Raise SetupRefused unless the recovery keys are keys, each another, and the anchor's hash is a block's."""
        keys = self.recovery_keys_hex
        for key in keys:
            if not is_valid_x_only(bytes.fromhex(key)):
                detail = f"{key} is no x-only public key; ask its holder for it again"
                raise SetupRefused(SetupReason.RECOVERY_KEY_UNKNOWN, detail)
            if keys.count(key) > 1:
                raise SetupRefused(SetupReason.RECOVERY_KEY_SHARED, f"{key} is named twice; each holder has a key")
        if not any(self.anchor.hash):
            raise _incomplete("anchor_hash_hex is all zeros, which no block's hash is")


@dataclass(frozen=True, slots=True)
class AgreedTemplate:
    """A completed template: the parameters, and what stands in [agreed]."""

    parameters: Template
    agreed: Agreed

    @classmethod
    def parse(cls, text: str, file: str = "") -> Self:
        """The template in TOML. Raises SetupRefused; GenesisRefused for parameters that can't be a chain's.

        file: what to call the template in a refusal, which names the line.
        """
        document = parse_template(text, file)
        table = dict(document.table)
        section = table.pop(SECTION, None)
        if section is None:
            raise _incomplete("it has no section [agreed]; whoever prepares it runs: peg federation template")
        try:
            agreed = msgspec.convert(section, Agreed, strict=True)
        except msgspec.ValidationError as error:
            raise _incomplete(str(error).replace("$.", "")) from error
        agreed = msgspec.structs.replace(agreed, recovery_keys_hex=tuple(sorted(agreed.recovery_keys_hex)))
        agreed.validate()
        with locating(document, file):
            template = cls(Template.from_table(table), agreed)
            template.compose(_placeholders(template.parameters.member_count))
        return template

    @property
    def digest(self) -> bytes:
        """32 bytes that commit to every value."""
        values = {**msgspec.to_builtins(self.parameters), SECTION: msgspec.to_builtins(self.agreed)}
        return tagged_hash("pegnode/template", msgspec.json.encode(values, order="sorted"))

    @property
    def fingerprint(self) -> str:
        """What people compare: 16 bytes of the digest, in hex, in groups of four digits."""
        return grouped(self.digest[:FINGERPRINT_SIZE].hex())

    def compose(self, members: Sequence[MemberSection]) -> Genesis:
        """The genesis with these members, in the order of their index. Raises GenesisRefused."""
        return Genesis.compose(
            self.parameters,
            members=members,
            recovery_keys_hex=self.agreed.recovery_keys_hex,
            anchor=self.agreed.anchor,
            time_ms=self.agreed.time_ms,
        )


def completed(parameters_toml: str, agreed: Agreed, names: Mapping[str, str] | None = None) -> str:
    """The text of the parameters with the section [agreed]. names: whose a recovery key is, for a comment.

    Raises SetupRefused, and GenesisRefused when no genesis could come of it.
    """
    if SECTION in parse_template(parameters_toml).table:
        detail = (
            "it has a section [agreed] already: give it to the members as it is, or begin with the parameters alone"
        )
        raise SetupRefused(SetupReason.TEMPLATE_COMPLETE, detail)
    keys = [f'    "{key}",{_comment(key, names or {})}' for key in sorted(agreed.recovery_keys_hex)]
    lines = [
        _HEADING,
        f"[{SECTION}]",
        f"time_ms = {agreed.time_ms} # block 0: {time_text(agreed.time_ms)}",
        f"anchor_height = {agreed.anchor_height} # the L1 block from which the sidechain counts",
        f'anchor_hash_hex = "{agreed.anchor_hash_hex}"',
        "recovery_keys_hex = [",
        *keys,
        "]",
    ]
    text = "\n".join([parameters_toml.rstrip("\n"), "", *lines, ""])
    AgreedTemplate.parse(text)
    return text


def parameters_of(parameters_toml: str, file: str = "") -> Template:
    """The parameters of a template that is not completed yet, or is. file: as for `parse`. Raises GenesisRefused."""
    document = parse_template(parameters_toml, file)
    with locating(document, file):
        return Template.from_table({name: value for name, value in document.table.items() if name != SECTION})


def _comment(key: str, names: Mapping[str, str]) -> str:
    return f" # {names[key]}" if key in names else ""


def _incomplete(detail: str) -> SetupRefused:
    return SetupRefused(SetupReason.TEMPLATE_INCOMPLETE, detail)


def _placeholders(count: int) -> list[MemberSection]:
    """As many members as there will be, so that parameters which no federation can have are refused at once."""
    secrets = [[sha256(f"{purpose} {index}".encode()) for purpose in "vcp"] for index in range(min(count, 256))]
    return [
        MemberSection(f"member-{index}", x_only(vote).hex(), x_only(custody).hex(), peer_id_from_secret(transport))
        for index, (vote, custody, transport) in enumerate(secrets)
    ]
