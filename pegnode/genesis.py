"""The genesis: every parameter that the members agreed on, and the chain id that commits to all of them.

A genesis is a JSON file. Its layout does not matter: the chain id hashes one canonical encoding, so two nodes have the
same chain id exactly when they agree on every value. Nothing has a default: what is missing is refused by name.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import msgspec

from bridge.bitcoin.hashes import tagged_hash
from bridge.bitcoin.identifiers import BlockHash, hash_from_hex, hash_to_hex
from bridge.custody import Custody
from bridge.ledger import GenesisLedger, ledger_root
from bridge.params import PegParams
from bridge.state import Anchor
from pegnode.chain.block import EMPTY_BODY
from pegnode.chain.header import HEADER_VERSION, Header
from pegnode.chain.parameters import ChainParams, ChainRules
from pegnode.consensus.parameters import ConsensusParams
from pegnode.genesis_rules import (
    FIRST_EPOCH,
    L1_GENESIS_HASHES_HEX,
    GenesisReason,
    GenesisRefused,
    check_chain,
    check_consensus,
    check_l1_anchor,
    check_l1_genesis,
    check_member_count,
    check_network,
    check_peg,
    checked_membership,
    checked_policy,
    converted,
)
from pegnode.input_file import read_input
from pegnode.options.errors import locating
from pegnode.options.toml_document import TomlDocument, TomlError

GENESIS_VERSION = 1
MAX_GENESIS_BYTES = 1_000_000

Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
PeerId = Annotated[str, msgspec.Meta(pattern=r"^[1-9A-HJ-NP-Za-km-z]{1,128}\Z")]
MemberName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}\Z")]
U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class L1Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which Bitcoin chain the peg is to, and the block of it from which the sidechain counts.

    network: as bitcoind names it.  Hashes as Bitcoin shows them, reversed, in hex.
    """

    network: str
    genesis_hash_hex: Hex32
    anchor_height: U32
    anchor_hash_hex: Hex32


class MemberSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One member, at its index. Keys: x-only public keys, 32 bytes in hex.  peer_id: as libp2p writes it."""

    name: MemberName
    vote_key_hex: Hex32
    custody_key_hex: Hex32
    peer_id: PeerId


class Template(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A genesis before there are members: configs/*.toml."""

    network: str
    member_count: int
    peg: PegParams
    chain: ChainParams
    consensus: ConsensusParams

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Self:
        """The template in a parsed TOML document; raises GenesisRefused unless it is complete."""
        template = converted(table, cls)
        check_network(template.network, ("network",))
        check_member_count(template.member_count, ("member_count",))
        check_chain(template.chain, template.peg)
        check_consensus(template.consensus)
        return template


class Genesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Every parameter of a chain. time_ms: of block 0, milliseconds since 1970."""

    version: int
    time_ms: TimeMs
    l1: L1Section
    members: tuple[MemberSection, ...]
    recovery_keys_hex: tuple[Hex32, ...]
    peg: PegParams
    chain: ChainParams
    consensus: ConsensusParams

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The genesis in JSON; raises GenesisRefused unless it is complete and its rules hold."""
        try:
            raw = msgspec.json.decode(data)
            _require_no_field_twice(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise GenesisRefused(GenesisReason.MALFORMED, f"not JSON: {error}") from error
        genesis = converted(raw, cls)
        genesis.rules()
        return genesis

    @classmethod
    def load(cls, path: Path) -> Self:
        """The genesis in a JSON file; raises FileRefused, and GenesisRefused with the file's name."""
        data = read_input(path, MAX_GENESIS_BYTES)
        with locating(TomlDocument("", {}), str(path)):
            return cls.decode(data)

    @classmethod
    def from_template(
        cls,
        template_toml: str,
        *,
        members: Sequence[MemberSection],
        recovery_keys_hex: Sequence[str],
        anchor: Anchor,
        time_ms: int,
        file: str = "",
    ) -> Self:
        """The genesis that a template and these members make; raises GenesisRefused with the template's line.

        anchor: a buried block of the template's network.  time_ms: now, milliseconds since 1970.
        file: what to call the template in a refusal.
        """
        document = parse_template(template_toml, file)
        with locating(document, file):
            return cls.compose(
                Template.from_table(document.table),
                members=members,
                recovery_keys_hex=recovery_keys_hex,
                anchor=anchor,
                time_ms=time_ms,
            )

    @classmethod
    def compose(
        cls,
        template: Template,
        *,
        members: Sequence[MemberSection],
        recovery_keys_hex: Sequence[str],
        anchor: Anchor,
        time_ms: int,
    ) -> Self:
        """As `from_template`, from a template that was read before."""
        if len(members) != template.member_count:
            what = f"the template is for {template.member_count} members, and these are {len(members)}"
            raise GenesisRefused(GenesisReason.MEMBER_COUNT, what, (("member_count",),))
        genesis = cls(
            version=GENESIS_VERSION,
            time_ms=time_ms,
            l1=L1Section(
                network=template.network,
                genesis_hash_hex=L1_GENESIS_HASHES_HEX.get(template.network, ""),
                anchor_height=anchor.height,
                anchor_hash_hex=hash_to_hex(anchor.hash),
            ),
            members=tuple(members),
            recovery_keys_hex=tuple(recovery_keys_hex),
            peg=template.peg,
            chain=template.chain,
            consensus=template.consensus,
        )
        genesis.rules()
        return cls.decode(genesis.canonical_bytes)

    @property
    def canonical_bytes(self) -> bytes:
        """The one encoding that the chain id commits to: JSON without spaces, keys in order."""
        return msgspec.json.encode(self, order="sorted")

    @property
    def document(self) -> bytes:
        """The same for people to read: what a genesis file contains."""
        return msgspec.json.format(self.canonical_bytes, indent=2) + b"\n"

    @property
    def chain_id(self) -> bytes:
        """32 bytes."""
        return tagged_hash("pegnode/chain-id", self.canonical_bytes)

    @property
    def anchor(self) -> Anchor:
        """The L1 block from which the sidechain counts."""
        return Anchor(self.l1.anchor_height, BlockHash(hash_from_hex(self.l1.anchor_hash_hex)))

    @property
    def l1_genesis_hash(self) -> BlockHash:
        """32 bytes, internal order."""
        return BlockHash(hash_from_hex(self.l1.genesis_hash_hex))

    def header(self) -> Header:
        """Block 0, on which nobody votes: empty, with the chain id for a parent."""
        chain_id = self.chain_id
        return Header(
            version=HEADER_VERSION,
            chain_id=chain_id,
            epoch=FIRST_EPOCH,
            height=0,
            view=0,
            parent=BlockHash(chain_id),
            leader=0,
            time_ms=self.time_ms,
            anchor=self.anchor,
            body_root=EMPTY_BODY.root,
            ledger_root=ledger_root(GenesisLedger(self.anchor)),
        )

    def rules(self) -> ChainRules:
        """The rules of the chain; raises GenesisRefused when the parameters contradict each other."""
        if self.version != GENESIS_VERSION:
            what = f"{self.version}, not {GENESIS_VERSION}: it needs the release that made it"
            raise GenesisRefused(GenesisReason.VERSION, what, (("version",),))
        check_network(self.l1.network, ("l1", "network"))
        check_l1_genesis(self.l1.network, self.l1.genesis_hash_hex)
        check_l1_anchor(self.l1.network, self.l1.anchor_height, self.l1.anchor_hash_hex)
        membership = checked_membership(self.members)
        policy = checked_policy(self.chain_id, membership, self.recovery_keys_hex, self.peg)
        check_peg(self.peg, policy)
        check_chain(self.chain, self.peg)
        check_consensus(self.consensus)
        return ChainRules(
            chain_id=self.chain_id,
            membership=membership,
            params=self.peg,
            custody=Custody({FIRST_EPOCH: policy}),
            l1_genesis_hash=self.l1_genesis_hash,
            genesis_header=self.header(),
            chain=self.chain,
        )


def parse_template(text: str, file: str = "") -> TomlDocument:
    """The TOML of a template. file: what to call it. Raises GenesisRefused: MALFORMED, DUPLICATE_FIELD."""
    try:
        return TomlDocument.parse(text)
    except TomlError as error:
        reason = GenesisReason.DUPLICATE_FIELD if error.option else GenesisReason.MALFORMED
        raise GenesisRefused(reason, error.what, (error.option,), lines=(error.line,), file=file) from error


def _require_no_field_twice(data: bytes) -> None:
    """Raise GenesisRefused for a field that JSON gives twice: readers differ in which of them they take."""

    def distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
        fields: dict[str, object] = {}
        for name, value in pairs:
            if name in fields:
                raise GenesisRefused(GenesisReason.DUPLICATE_FIELD, "given twice; keep one of them", ((name,),))
            fields[name] = value
        return fields

    json.loads(data, object_pairs_hook=distinct)
