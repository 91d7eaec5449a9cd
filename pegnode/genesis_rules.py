"""What a genesis, or a template for one, must be like. Every refusal names the fields that it is about. (pure)"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin, get_type_hints

import msgspec

from bridge.bitcoin.addresses import l1_network
from bridge.bitcoin.curve import is_valid_x_only
from bridge.custody import MAX_RELATIVE_BLOCKS, CustodyPolicy, CustodyReason, quorum_input_weight
from bridge.errors import Reason, Rejected
from bridge.params import ParamsReason, PegParams
from bridge.refunds import MAX_REFUND_BYTES
from bridge.state import MAX_BATCH_TRANSACTION_BYTES
from federation.membership import Member, Membership
from pegnode.chain.block import ITEM_OVERHEAD_BYTES, MAX_BATCHES, MAX_TRANSACTION_BYTES
from pegnode.chain.parameters import ChainParams, ChainParamsRefused
from pegnode.consensus.parameters import ConsensusParams, ConsensusParamsRefused
from pegnode.net.address import transport_key_of
from pegnode.net.transport import TransportError
from pegnode.options.errors import OptionRefused, refuse_any
from pegnode.options.toml_document import OptionPath, spelt
from pegnode.options.wording import explained, suggestion

if TYPE_CHECKING:
    from pegnode.genesis import MemberSection

MAX_FEDERATION_MEMBERS = 19
"""13 signatures of 19 fit a witness that every Bitcoin node relays, 14 of 20 don't: see bridge.custody."""
FIRST_EPOCH = 0

L1_GENESIS_HASHES_HEX = {
    "main": "000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f",
    "test": "000000000933ea01ad0ee984209779baaec3ced90fa3f408719526f8d77f4943",
    "signet": "00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6",
    "regtest": "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206",
}
"""Source: Bitcoin Core, kernel/chainparams.cpp. Every signet has the same first block."""

T = TypeVar("T")
_TIMELOCK: OptionPath = ("peg", "recovery_timelock_blocks")


class GenesisReason(Reason):
    """Why a genesis, or a template for one, is refused."""

    MALFORMED = "genesis-malformed"
    """Neither JSON nor, for a template, TOML."""
    DUPLICATE_FIELD = "genesis-duplicate-field"
    """A field or section is given twice."""
    UNKNOWN_FIELD = "genesis-unknown-field"
    """No field has that name; a quorum, for one, is not chosen."""
    MISSING_FIELD = "genesis-missing-field"
    """Nothing has a default."""
    INVALID_FIELD = "genesis-invalid-field"
    """A value of another type or form."""
    VERSION = "genesis-version"
    """Another release of this program made it."""
    NETWORK = "genesis-network"
    """No Bitcoin network has that name."""
    L1_GENESIS = "genesis-l1-genesis"
    """The first block is not that of the network."""
    L1_ANCHOR = "genesis-l1-anchor"
    """The L1 block that the chain begins from is none, or not at its height."""
    MEMBER_COUNT = "genesis-member-count"
    """No members, more than the reserve's script can hold, or not as many as the template says."""
    DUPLICATE_NAME = "genesis-duplicate-name"
    """Two members have one name."""
    DUPLICATE_PEER_ID = "genesis-duplicate-peer-id"
    """Two members have one peer id."""
    DUPLICATE_KEY = "genesis-duplicate-key"
    """One key serves two members, or two purposes."""
    INVALID_KEY = "genesis-invalid-key"
    """32 bytes that are the x coordinate of no point of the curve."""
    INVALID_PEER_ID = "genesis-invalid-peer-id"
    """Not the peer id of a secp256k1 key."""
    RECOVERY_QUORUM = "genesis-recovery-quorum"
    """None of the recovery keys would do, or not even all of them."""
    DUPLICATE_RECOVERY_KEY = "genesis-duplicate-recovery-key"
    """One recovery key is named twice."""
    RECOVERY_KEY_OF_MEMBER = "genesis-recovery-key-of-member"
    """A recovery key is a member's vote, custody or transport key."""
    RECOVERY_TIMELOCK = "genesis-recovery-timelock"
    """The recovery keys could spend before the members have had time to move their coins."""
    CUSTODY = "genesis-custody"
    """No reserve script can be made of these keys: its witness would be too large to be relayed."""
    PEG = "genesis-peg"
    """Parameters of the peg that break one of its own rules, which is named."""
    EVIDENCE_SHARE = "genesis-evidence-share"
    """Evidence, refunds and batches could crowd transactions out of the largest body."""
    CHAIN = "genesis-chain"
    """A cap on blocks out of its range, which is named."""
    CONSENSUS = "genesis-consensus"
    """Times that can't work together, for a reason that is named."""


class GenesisRefused(OptionRefused):
    """Parameters that can't be a chain's. reason: GenesisReason.  options: the fields that it is about."""


PARAMETERS_OF_RULES: Mapping[Reason, tuple[str, ...]] = {
    ParamsReason.EVIDENCE_BYTES: ("max_evidence_bytes", "max_evidence_transaction_bytes", "max_openings"),
    ParamsReason.FEERATES_CROSSED: ("feerate_floor_sat_kvb", "feerate_ceiling_sat_kvb"),
    ParamsReason.COIN_FLOOR: ("coin_floor_sats", "feerate_ceiling_sat_kvb"),
    ParamsReason.CLAIM_FEE: ("claim_fee_sats", "feerate_ceiling_sat_kvb"),
    ParamsReason.MIN_DEPOSIT: ("min_deposit_sats", "claim_fee_sats", "coin_floor_sats"),
    ParamsReason.MIN_WITHDRAWAL: ("min_withdrawal_sats", "min_deposit_sats", "claim_fee_sats"),
    ParamsReason.WITHDRAWAL_CAPS: (
        "max_withdrawal_sats",
        "min_deposit_sats",
        "max_window_withdrawals_sats",
        "max_peg_sats",
    ),
    ParamsReason.WITHDRAWAL_EXPIRY: ("withdrawal_expiry_anchors", "batch_max_wait_anchors", "max_anchor_step"),
    ParamsReason.BATCH_PAYEES: ("batch_min_payouts", "batch_max_payees"),
    ParamsReason.BATCH_INPUTS: ("batch_max_first_inputs", "batch_max_inputs"),
    ParamsReason.BATCH_WEIGHT: ("batch_max_inputs", "batch_max_payees", "change_target_coins"),
    ParamsReason.MAINTENANCE_INPUTS: (
        "maintenance_max_first_inputs",
        "maintenance_max_inputs",
        "batch_max_first_inputs",
    ),
    ParamsReason.MAINTENANCE_WEIGHT: ("maintenance_max_inputs", "change_target_coins"),
}
"""Which parameters of the peg each of its rules is about; OUT_OF_RANGE is about the one that its detail names first."""


def converted(raw: Any, wanted: type[T]) -> T:
    """`raw` as `wanted`, complete and with nothing else. Raises GenesisRefused."""
    if not isinstance(raw, Mapping):
        raise GenesisRefused(GenesisReason.INVALID_FIELD, "this is no table of fields")
    sections = list(_sections(raw, wanted, ()))
    refuse_any(_unknown(sections, raw))
    refuse_any(_missing(sections))
    try:
        return msgspec.convert(raw, wanted, strict=True)
    except msgspec.ValidationError as error:
        what, option = explained(error)
        raise GenesisRefused(GenesisReason.INVALID_FIELD, what, (option,)) from error


_Section = tuple[OptionPath, Mapping[str, Any], Mapping[str, Any]]
"""Where a section is, what it gives, and the types of what it should give."""


def _sections(raw: Mapping[str, Any], wanted: type, section: OptionPath) -> Iterator[_Section]:
    """A section, and those within it."""
    kinds = get_type_hints(wanted)
    yield section, raw, kinds
    for name, kind in kinds.items():
        value, option = raw.get(name), (*section, name)
        if isinstance(value, Mapping) and _is_section(kind):
            yield from _sections(value, kind, option)
        if isinstance(value, list) and get_origin(kind) is tuple and _is_section(element := get_args(kind)[0]):
            for index, item in enumerate(value):
                if isinstance(item, Mapping):
                    yield from _sections(item, element, (*option, index))


def _unknown(sections: Iterable[_Section], whole: Mapping[str, Any]) -> Iterator[GenesisRefused]:
    for section, raw, kinds in sections:
        for name in raw:
            if name not in kinds:
                is_quorum = "quorum" in name or "threshold" in name
                what = _quorum_advice(whole) if is_quorum else suggestion(name, list(kinds))
                yield GenesisRefused(GenesisReason.UNKNOWN_FIELD, what, ((*section, name),))


def _missing(sections: Iterable[_Section]) -> Iterator[GenesisRefused]:
    what = "missing: nothing in a genesis has a default; see configs/federation-15.toml for what it means"
    for section, raw, kinds in sections:
        for name in kinds:
            if name not in raw:
                yield GenesisRefused(GenesisReason.MISSING_FIELD, what, ((*section, name),))


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and (dataclasses.is_dataclass(kind) or issubclass(kind, msgspec.Struct))


def _quorum_advice(whole: Mapping[str, Any]) -> str:
    members = whole.get("members")
    count = len(members) if isinstance(members, list) else whole.get("member_count")
    what = "unknown: the quorum is not chosen, it is n - (n-1)//3 of n members"
    if isinstance(count, int) and 1 <= count <= MAX_FEDERATION_MEMBERS:
        what += f", here {count - (count - 1) // 3} of {count}"
    return f"{what}; remove this (recovery_quorum, in [peg], is another matter)"


def check_network(name: str, option: OptionPath) -> None:
    """Raise GenesisRefused unless Bitcoin has a network of that name, which we know."""
    try:
        l1_network(name)
    except Rejected as error:
        what = f"{name!r} is no Bitcoin network; there are {', '.join(L1_GENESIS_HASHES_HEX)}"
        raise GenesisRefused(GenesisReason.NETWORK, what, (option,)) from error


def check_l1_genesis(network: str, genesis_hash_hex: str) -> None:
    """Raise GenesisRefused unless this is the first block of the network."""
    if genesis_hash_hex != L1_GENESIS_HASHES_HEX[network]:
        what = f"not the first block of {l1_network(network).title}, {L1_GENESIS_HASHES_HEX[network]}"
        raise GenesisRefused(GenesisReason.L1_GENESIS, what, (("l1", "genesis_hash_hex"), ("l1", "network")))


def check_l1_anchor(network: str, height: int, hash_hex: str) -> None:
    """Raise GenesisRefused if no block of the network can be meant."""
    first = L1_GENESIS_HASHES_HEX[network]
    options: tuple[OptionPath, ...] = (("l1", "anchor_hash_hex"), ("l1", "anchor_height"))
    if not any(bytes.fromhex(hash_hex)):
        raise GenesisRefused(GenesisReason.L1_ANCHOR, "the hash of no block: nothing but zeros", options)
    if (height == 0) != (hash_hex == first):
        what = f"{hash_hex} is {'not ' if height == 0 else ''}the network's first block, and the height is {height}"
        raise GenesisRefused(GenesisReason.L1_ANCHOR, what, options)


def check_member_count(count: int, option: OptionPath) -> None:
    """Raise GenesisRefused unless the reserve's script can hold that many members."""
    if not 1 <= count <= MAX_FEDERATION_MEMBERS:
        what = (
            f"{count}; a federation has 1 to {MAX_FEDERATION_MEMBERS} members, and 4 at least to survive one's failure"
        )
        raise GenesisRefused(GenesisReason.MEMBER_COUNT, what, (option,))


def checked_membership(members: Sequence["MemberSection"]) -> Membership:
    """The members of the first epoch. Raises GenesisRefused: nothing of one member may be another's."""
    check_member_count(len(members), ("members",))
    _require_distinct(GenesisReason.DUPLICATE_NAME, {("members", i, "name"): m.name for i, m in enumerate(members)})
    _require_distinct(
        GenesisReason.DUPLICATE_PEER_ID, {("members", i, "peer_id"): m.peer_id for i, m in enumerate(members)}
    )
    _require_distinct(GenesisReason.DUPLICATE_KEY, {option: key.hex() for option, key in _keys(members).items()})
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
            for index, member in enumerate(members)
        ),
    )
    membership.validate()
    return membership


def _keys(members: Sequence["MemberSection"]) -> dict[OptionPath, bytes]:
    """Every key of every member, x-only. Raises GenesisRefused for one that is none."""
    keys: dict[OptionPath, bytes] = {}
    for index, member in enumerate(members):
        for name, key_hex in (("vote_key_hex", member.vote_key_hex), ("custody_key_hex", member.custody_key_hex)):
            keys["members", index, name] = _point(key_hex, ("members", index, name))
        try:
            keys["members", index, "peer_id"] = transport_key_of(member.peer_id)[1:]
        except TransportError as error:
            option = ("members", index, "peer_id")
            raise GenesisRefused(GenesisReason.INVALID_PEER_ID, str(error), (option,)) from error
    return keys


def _point(key_hex: str, option: OptionPath) -> bytes:
    key = bytes.fromhex(key_hex)
    if not is_valid_x_only(key):
        raise GenesisRefused(GenesisReason.INVALID_KEY, f"{key_hex} is no key; ask its holder for it again", (option,))
    return key


def _require_distinct(reason: GenesisReason, values: Mapping[OptionPath, str]) -> None:
    first: dict[str, OptionPath] = {}
    for option, value in values.items():
        if (earlier := first.setdefault(value, option)) != option:
            raise GenesisRefused(reason, f"the same as {spelt(earlier)}; each needs one of its own", (option, earlier))


def checked_policy(
    chain_id: bytes, membership: Membership, recovery_keys_hex: Sequence[str], peg: PegParams
) -> CustodyPolicy:
    """Who may spend the reserve in the first epoch. Raises GenesisRefused."""
    count = len(recovery_keys_hex)
    if not 1 <= peg.recovery_quorum <= count:
        what = f"{peg.recovery_quorum} of {count} recovery keys; 1 to {count} of them can be enough"
        what = what if count else "there are no recovery keys; name at least one"
        options = (("peg", "recovery_quorum"), ("recovery_keys_hex",))
        raise GenesisRefused(GenesisReason.RECOVERY_QUORUM, what, options)
    recovery: dict[OptionPath, str] = {("recovery_keys_hex", i): key for i, key in enumerate(recovery_keys_hex)}
    _require_distinct(GenesisReason.DUPLICATE_RECOVERY_KEY, recovery)
    for option, key in recovery.items():
        _point(key, option)
        for member in membership.members:
            if bytes.fromhex(key) in (member.vote_key32, member.custody_key32, transport_key_of(member.peer_id)[1:]):
                what = f"a key of the member {member.name}; a recovery key is held apart from all others"
                raise GenesisRefused(GenesisReason.RECOVERY_KEY_OF_MEMBER, what, (option, ("members", member.index)))
    try:
        return CustodyPolicy(
            chain_id=chain_id,
            epoch=FIRST_EPOCH,
            quorum=membership.quorum,
            member_keys=tuple(member.custody_key32 for member in membership.members),
            recovery_keys=tuple(bytes.fromhex(key) for key in recovery_keys_hex),
            recovery_quorum=peg.recovery_quorum,
            recovery_timelock_blocks=peg.recovery_timelock_blocks,
        )
    except Rejected as error:
        if error.reason is CustodyReason.TIMELOCK_OUT_OF_RANGE:
            what = f"1 to {MAX_RELATIVE_BLOCKS:,} blocks is all that Bitcoin can count"
            raise GenesisRefused(GenesisReason.RECOVERY_TIMELOCK, what, (_TIMELOCK,)) from error
        raise GenesisRefused(GenesisReason.CUSTODY, str(error), (("recovery_keys_hex",),)) from error


def check_peg(peg: PegParams, policy: CustodyPolicy) -> None:
    """Raise GenesisRefused unless the peg can keep its promises with these parameters and this reserve script."""
    try:
        peg.validate(quorum_input_weight(policy))
    except Rejected as error:
        names = PARAMETERS_OF_RULES.get(error.reason) or (error.detail.partition(" ")[0],)
        raise GenesisRefused(GenesisReason.PEG, str(error), [("peg", name) for name in names]) from error
    least = 8 * (peg.confirmations + peg.replacement_interval_anchors)
    if peg.recovery_timelock_blocks < least:
        what = (
            f"below {least}: members move a coin when three quarters of this have passed, at the latest, and need"
            " confirmations and replacement_interval_anchors for it, and as much for a batch that comes before"
        )
        raise GenesisRefused(GenesisReason.RECOVERY_TIMELOCK, what, (_TIMELOCK,))


def check_chain(chain: ChainParams, peg: PegParams) -> None:
    """Raise GenesisRefused unless blocks of these sizes hold what they must, and transactions besides."""
    try:
        chain.validate()
    except ChainParamsRefused as error:
        options = [("chain", name) for name in error.parameters]
        raise GenesisRefused(GenesisReason.CHAIN, str(error), options) from error
    refunds_bytes = peg.max_refunds_per_block * (ITEM_OVERHEAD_BYTES + MAX_REFUND_BYTES)
    batches_bytes = MAX_BATCHES * MAX_BATCH_TRANSACTION_BYTES
    wanted = peg.max_evidence_bytes + refunds_bytes + batches_bytes + 2 * MAX_TRANSACTION_BYTES
    if chain.max_body_bytes < wanted:
        what = f"below {wanted}: evidence, refunds and batches could crowd out transactions"
        options = [("chain", "max_body_bytes"), ("peg", "max_evidence_bytes"), ("peg", "max_refunds_per_block")]
        raise GenesisRefused(GenesisReason.EVIDENCE_SHARE, what, options)


def check_consensus(consensus: ConsensusParams) -> None:
    """Raise GenesisRefused unless the times can work together."""
    try:
        consensus.validate()
    except ConsensusParamsRefused as error:
        options = [("consensus", name) for name in error.parameters]
        raise GenesisRefused(GenesisReason.CONSENSUS, str(error), options) from error
