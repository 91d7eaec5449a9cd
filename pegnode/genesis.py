"""The genesis: every parameter that the members agreed on, and the chain id that commits to all of them.

A genesis is a JSON file. Its layout does not matter: the chain id hashes one canonical encoding, so two nodes have the
same chain id exactly when they agree on every value. Nothing has a default: what is missing is refused by name.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import msgspec

from bridge.bitcoin.addresses import l1_network
from bridge.bitcoin.hashes import tagged_hash
from bridge.bitcoin.identifiers import BlockHash, hash_from_hex, hash_to_hex
from bridge.custody import Custody, CustodyPolicy, quorum_input_weight
from bridge.errors import Reason, Rejected
from bridge.ledger import GenesisLedger, ledger_root
from bridge.params import PegParams
from bridge.state import MAX_BATCH_TRANSACTION_BYTES, Anchor
from federation.errors import Refused
from federation.membership import Member, Membership
from pegnode.chain.block import EMPTY_BODY, MAX_BATCHES, MAX_TRANSACTION_BYTES
from pegnode.chain.header import HEADER_VERSION, Header
from pegnode.chain.parameters import ChainParams, ChainRules
from pegnode.consensus.parameters import ConsensusParams, ConsensusParamsRefused
from pegnode.errors import Refusal

GENESIS_VERSION = 1
FIRST_EPOCH = 0
MAX_GENESIS_BYTES = 1_000_000

L1_GENESIS_HASHES_HEX = {
    "main": "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    "test": "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
    "signet": "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
    "regtest": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
}
"""Source: Bitcoin Core, kernel/chainparams.cpp. Every signet has the same first block."""

T = TypeVar("T")
Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
PeerId = Annotated[str, msgspec.Meta(pattern=r"^[1-9A-HJ-NP-Za-km-z]{1,128}\Z")]
MemberName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}\Z")]
U32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
TimeMs = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class GenesisReason(Reason):
    """Why a genesis, or a template for one, is refused."""

    UNREADABLE = "genesis-unreadable"
    MALFORMED = "genesis-malformed"
    INVALID_FIELD = "genesis-invalid-field"
    UNKNOWN_FIELD = "genesis-unknown-field"
    VERSION = "genesis-version"
    NETWORK = "genesis-network"
    L1_GENESIS = "genesis-l1-genesis"
    MEMBERS = "genesis-members"
    MEMBER_COUNT = "genesis-member-count"
    CUSTODY = "genesis-custody"
    PEG = "genesis-peg"
    CHAIN = "genesis-chain"
    CONSENSUS = "genesis-consensus"


class GenesisRefused(Refusal):
    """Parameters that can't be a chain's. reason: GenesisReason; the detail names the field or the rule."""


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
        return _converted(table, cls)


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
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise GenesisRefused(GenesisReason.MALFORMED, str(error)) from error
        genesis = _converted(raw, cls)
        genesis.rules()
        return genesis

    @classmethod
    def load(cls, path: Path) -> Self:
        """The genesis in a JSON file; raises GenesisRefused."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_GENESIS_BYTES + 1)
        except OSError as error:
            raise GenesisRefused(GenesisReason.UNREADABLE, f"{path}: {error.strerror}") from error
        if len(data) > MAX_GENESIS_BYTES:
            raise GenesisRefused(GenesisReason.UNREADABLE, f"{path}: more than {MAX_GENESIS_BYTES} bytes")
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
    ) -> Self:
        """The genesis that a template and these members make; raises GenesisRefused.

        anchor: a buried block of the template's network.  time_ms: now, milliseconds since 1970.
        """
        try:
            raw = tomllib.loads(template_toml)
        except (ValueError, RecursionError) as error:  # TOMLDecodeError, and numbers longer than the language reads
            raise GenesisRefused(GenesisReason.MALFORMED, str(error)) from error
        return cls.compose(
            Template.from_table(raw),
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
            detail = f"{len(members)}, and the template is for {template.member_count}"
            raise GenesisRefused(GenesisReason.MEMBER_COUNT, detail)
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
            raise GenesisRefused(GenesisReason.VERSION, f"{self.version}, not {GENESIS_VERSION}")
        self._check_network()
        membership = self._membership()
        policy = self._policy(membership)
        try:
            self.peg.validate(quorum_input_weight(policy))
        except Rejected as error:
            raise GenesisRefused(GenesisReason.PEG, str(error)) from error
        self._check_chain()
        return ChainRules(
            chain_id=self.chain_id,
            membership=membership,
            params=self.peg,
            custody=Custody({FIRST_EPOCH: policy}),
            l1_genesis_hash=self.l1_genesis_hash,
            genesis_header=self.header(),
            chain=self.chain,
        )

    def _check_network(self) -> None:
        try:
            network = l1_network(self.l1.network)
        except Rejected as error:
            raise GenesisRefused(GenesisReason.NETWORK, str(error)) from error
        if self.l1.genesis_hash_hex != L1_GENESIS_HASHES_HEX[network.name]:
            raise GenesisRefused(GenesisReason.L1_GENESIS, f"not the first block of {network.title}")

    def _membership(self) -> Membership:
        membership = Membership(
            FIRST_EPOCH,
            tuple(
                Member(
                    index=index,
                    name=member.name,
                    vote_key32=bytes.fromhex(member.vote_key_hex),
                    custody_key32=bytes.fromhex(member.custody_key_hex),
                    peer_id=member.peer_id,
                )
                for index, member in enumerate(self.members)
            ),
        )
        try:
            membership.validate()
        except Refused as error:
            raise GenesisRefused(GenesisReason.MEMBERS, str(error)) from error
        return membership

    def _policy(self, membership: Membership) -> CustodyPolicy:
        try:
            return CustodyPolicy(
                chain_id=self.chain_id,
                epoch=FIRST_EPOCH,
                quorum=membership.quorum,
                member_keys=tuple(member.custody_key32 for member in membership.members),
                recovery_keys=tuple(bytes.fromhex(key) for key in self.recovery_keys_hex),
                recovery_quorum=self.peg.recovery_quorum,
                recovery_timelock_blocks=self.peg.recovery_timelock_blocks,
            )
        except Rejected as error:
            raise GenesisRefused(GenesisReason.CUSTODY, str(error)) from error

    def _check_chain(self) -> None:
        problems = self.chain.problems()
        wanted = self.peg.max_evidence_bytes + MAX_BATCHES * MAX_BATCH_TRANSACTION_BYTES + 2 * MAX_TRANSACTION_BYTES
        if self.chain.max_body_bytes < wanted:
            problems.append(f"max_body_bytes below {wanted}: evidence and batches could crowd out transactions")
        if problems:
            raise GenesisRefused(GenesisReason.CHAIN, "; ".join(problems))
        try:
            self.consensus.validate()
        except ConsensusParamsRefused as error:
            raise GenesisRefused(GenesisReason.CONSENSUS, str(error)) from error


def _converted(raw: Any, wanted: type[T]) -> T:
    """`raw` as `wanted`, complete and with nothing else. A dataclass would take unknown fields in silence."""
    try:
        value = msgspec.convert(raw, wanted, strict=True)
    except msgspec.ValidationError as error:
        raise GenesisRefused(GenesisReason.INVALID_FIELD, str(error)) from error
    known = msgspec.to_builtins(value)
    for section in ("peg", "chain", "consensus"):
        unknown = sorted(raw[section].keys() - known[section].keys())
        if unknown:
            raise GenesisRefused(GenesisReason.UNKNOWN_FIELD, f"{section}.{unknown[0]}")
    return value
