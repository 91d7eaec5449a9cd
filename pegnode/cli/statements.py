"""`peg audit sign`, `combine`, `verify`: statements of solvency in files, which go from member to member."""

from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from bridge.bitcoin.identifiers import hash_to_hex
from federation.endorsement import check_signatures
from federation.membership import Membership
from federation.statement import (
    SignedStatement,
    StatementReason,
    StatementRefused,
    check_age,
    verify_statement,
)
from pegnode.audit.document import (
    MAX_DOCUMENT_BYTES,
    DocumentReason,
    DocumentRefused,
    StatementDocument,
    parse_document,
    render_document,
)
from pegnode.chain.parameters import ChainRules
from pegnode.cli.home import DirectoryOption, Home, NodeOption, rpc_url
from pegnode.cli.replaced_file import replace_file
from pegnode.cli.terminal import JsonOption, errors_as_one_line, out, print_fields, print_json
from pegnode.clock import now_ms
from pegnode.genesis import Genesis
from pegnode.input_file import read_input
from pegnode.rpc.client import RpcClient
from pegnode.setup.inputs import write_new

SCAN_TIMEOUT_S: Final = 2_400.0
"""Above what a node gives its Bitcoin node for a scan."""
HOUR_MS: Final = 3_600_000

GenesisOption = Annotated[
    Path, typer.Option("--genesis", help="The chain's genesis.json, which names the members and their keys.")
]


class VerifiedReply(msgspec.Struct, frozen=True):
    """What `peg audit verify --json` prints. signers: the members' names.  quorum: how many had to sign."""

    statement: StatementDocument
    signers: list[str]
    quorum: int
    members: int
    age_ms: int


def sign(
    file: Annotated[Path, typer.Argument(help="The statement: signed too if it is there, else drawn up and written.")],
    directory: DirectoryOption,
    node: NodeOption = None,
) -> None:
    """Have a running member audit its chain and its Bitcoin node, and sign the statement in FILE if they agree.

    The member signs only what it found itself. Send the file from member to member until a quorum has signed it, or
    let each sign a copy of the first one and `combine` them.
    """
    with errors_as_one_line():
        home = Home(directory, node)
        rules = home.genesis().rules()
        given = _read(file, rules) if file.exists() else None
        with patient_client(home) as client:
            text = None if given is None else given.statement.encode().hex()
            signed = client.ask(StatementDocument, "signstatement", text).signed()
        check_signatures(signed.signatures, signed.statement.digest32, rules.membership)
        joined = signed if given is None else given.joined(signed)
        _write(file, joined)
    _print_signers(joined, rules.membership)


def combine(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Copies of one statement.")],
    genesis: GenesisOption,
    output: Annotated[
        Path, typer.Option("--out", help="Where to write the statement with all signatures; a new file.")
    ],
) -> None:
    """Bring the signatures in several copies of one statement together. Every signature is checked."""
    with errors_as_one_line():
        rules = Genesis.load(genesis).rules()
        first, *others = (_read(path, rules) for path in files)
        for other in others:
            first = first.joined(other)
        write_new(output, render_document(first))
    _print_signers(first, rules.membership)


def verify(
    file: Annotated[Path, typer.Argument(help="The statement.")],
    genesis: GenesisOption,
    max_age_hours: Annotated[
        int | None, typer.Option("--max-age", min=0, help="Refuse a statement that is older, in hours.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check that a quorum of the members signed a statement, and say what it states. Exit status 1 if not.

    Needs no node and no network: the file, and a genesis.json whose chain id you trust.
    """
    with errors_as_one_line():
        rules, now = Genesis.load(genesis).rules(), now_ms()
        signed = parse_document(read_input(file, MAX_DOCUMENT_BYTES))
        verify_statement(signed, rules.membership, rules.chain_id, now)
        if max_age_hours is not None:
            check_age(signed.statement, now, max_age_hours * HOUR_MS)
    age_ms = now - signed.statement.time_ms
    if json:
        names = _names(signed, rules.membership)
        size, quorum = rules.membership.size, rules.membership.quorum
        print_json(VerifiedReply(StatementDocument.of(signed), names, quorum, size, age_ms))
    else:
        _print_verified(signed, rules.membership, age_ms)


def patient_client(home: Home) -> RpcClient:
    """A client of the node to ask, which waits as long as a scan may take."""
    config = home.config()
    return RpcClient(rpc_url(config), config.cookie_path, timeout_seconds=SCAN_TIMEOUT_S)


def _read(path: Path, rules: ChainRules) -> SignedStatement:
    """A statement about this chain whose signatures are genuine, however few."""
    signed = parse_document(read_input(path, MAX_DOCUMENT_BYTES))
    if signed.statement.terms.chain_id != rules.chain_id:
        raise StatementRefused(StatementReason.WRONG_CHAIN, f"{path}: {signed.statement.terms.chain_id.hex()}")
    check_signatures(signed.signatures, signed.statement.digest32, rules.membership)
    return signed


def _write(path: Path, signed: SignedStatement) -> None:
    """Put the statement into the file in one step. Raises DocumentRefused(UNWRITABLE)."""
    try:
        replace_file(path, render_document(signed))
    except OSError as error:
        raise DocumentRefused(DocumentReason.UNWRITABLE, f"{path}: {error.strerror}") from error


def _names(signed: SignedStatement, membership: Membership) -> list[str]:
    return [membership.members[member].name for member in signed.signers]


def _print_signers(signed: SignedStatement, membership: Membership) -> None:
    names = ", ".join(_names(signed, membership))
    missing = membership.quorum - len(signed.signers)
    more = f"{missing} more for a quorum" if missing > 0 else f"a quorum is {membership.quorum}"
    out.print(f"block {signed.statement.terms.height}, signed by {names}: {more}", markup=False)


def _print_verified(signed: SignedStatement, membership: Membership, age_ms: int) -> None:
    statement = signed.statement
    terms = statement.terms
    names = ", ".join(_names(signed, membership))
    print_fields(
        {
            "signed by": f"{names}: {len(signed.signers)} of {membership.size}, {membership.quorum} needed",
            "age": _age(age_ms),
            "chain": terms.chain_id.hex(),
            "block": f"{terms.height} {hash_to_hex(terms.block_hash)}",
            "ledger root": terms.ledger_root.hex(),
            "anchor": f"{terms.anchor.height} {hash_to_hex(terms.anchor.hash)}",
            "L1 tip": f"{statement.l1_tip.height} {hash_to_hex(statement.l1_tip.hash)}",
            "reserves": f"{terms.reserves_sats:,} sats",
            "deficit": f"{terms.deficit_sats:,} sats",
            "supply": f"{terms.supply_sats:,} sats",
            "unsettled": f"{terms.unsettled_sats:,} sats",
            "fund": f"{terms.fund_sats:,} sats",
        }
    )
    out.print("the equality holds; it was true then, and says nothing of what came after", markup=False)


def _age(age_ms: int) -> str:
    minutes = max(age_ms, 0) // 60_000
    return f"{minutes // 1440} days, {minutes // 60 % 24} hours, {minutes % 60} minutes"
