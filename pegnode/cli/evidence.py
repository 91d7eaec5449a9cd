"""`peg evidence`: proofs that a member signed two votes which exclude each other; listed, written to files, checked."""

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from bridge.errors import Reason
from pegnode.cli.home import DirectoryOption, Home, NodeOption
from pegnode.cli.terminal import JsonOption, errors_as_one_line, out, print_fields, print_items, print_json
from pegnode.errors import ReasonedError
from pegnode.genesis import Genesis
from pegnode.guilt.document import (
    MAX_DOCUMENT_BYTES,
    Accusation,
    AccusationDocument,
    describe_vote,
    parse_accusation,
    render_accusation,
)
from pegnode.input_file import read_input
from pegnode.local_federation import LocalFederation
from pegnode.setup.inputs import write_new

evidence_app = typer.Typer(
    no_args_is_help=True,
    help="Proofs that a member signed two votes which exclude each other. Anybody can check one, without a node.",
)
NONE_KNOWN = "this node knows of no member that signed two votes which exclude each other"


class ProofReason(Reason):
    """Why there is nothing to write."""

    NONE = "proof-none"
    """The node has no proof against such a member, or none of that view."""


class NoProof(ReasonedError):  # noqa: N818 -- an answer
    """There is no such proof. reason: ProofReason."""


class VerifiedReply(msgspec.Struct, frozen=True):
    """What `peg evidence verify --json` prints of a proof that holds.

    is_member: whether a genesis was at hand, by which the vote key is that member's; false: that was not checked.
    """

    proof: AccusationDocument
    is_member: bool


@evidence_app.command("list")
def list_evidence(directory: DirectoryOption, node: NodeOption = None, json: JsonOption = False) -> None:
    """List the proofs that a node has, against whom, and what was signed."""
    with errors_as_one_line():
        documents = _documents(Home(directory, node))
    if json:
        print_json(documents)
        return
    print_items([(_headline(item), _votes(item.accusation())) for item in documents], NONE_KNOWN)


@evidence_app.command("export")
def export(
    member: Annotated[str, typer.Argument(help="The member's name.")],
    file: Annotated[Path, typer.Argument(help="Where to write the proof; a new file.")],
    directory: DirectoryOption,
    node: NodeOption = None,
    view: Annotated[
        int | None, typer.Option(min=1, help="The proof of this view.", show_default="the lowest one")
    ] = None,
) -> None:
    """Write a proof against a member to a file that proves itself, for colleagues, users, or a court."""
    with errors_as_one_line():
        accusations = [document.accusation() for document in _documents(Home(directory, node))]
        found = [item for item in accusations if item.name == member and view in (None, item.equivocation.view)]
        if not found:
            which = "" if view is None else f" of view {view}"
            raise NoProof(ProofReason.NONE, f"this node has no proof{which} against {member!r}")
        found[0].verify()
        write_new(file, render_accusation(found[0]))
    out.print(f"{file}: check it anywhere with: peg evidence verify {file} --genesis GENESIS", markup=False)


@evidence_app.command("verify")
def verify(
    file: Annotated[Path, typer.Argument(help="The proof.")],
    directory: DirectoryOption,
    genesis: Annotated[
        Path | None,
        typer.Option(
            "--genesis",
            help="The chain's genesis.json, which names the members and their keys.",
            show_default="that of the local federation, if there is one",
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Check a proof, and say what it proves. Exit status 1 if it proves nothing, or nothing of the member it names.

    Needs no node and no network: the file, and a genesis.json whose chain id you trust. Without one, only what the key
    in the file signed is checked, and not whose key it is.
    """
    with errors_as_one_line():
        accusation = parse_accusation(read_input(file, MAX_DOCUMENT_BYTES))
        accusation.verify()
        path = genesis or _local_genesis(directory)
        if path is not None:
            accusation.require_member(Genesis.load(path).rules())
    if json:
        print_json(VerifiedReply(AccusationDocument.of(accusation), path is not None))
    else:
        _print_verified(accusation, path)


def _documents(home: Home) -> list[AccusationDocument]:
    with home.client() as client:
        return client.ask(list[AccusationDocument], "listequivocations")


def _local_genesis(directory: Path) -> Path | None:
    """The genesis of the local federation in the directory, if there is one."""
    path = LocalFederation(directory.absolute(), ()).genesis_path
    return path if path.is_file() else None


def _headline(document: AccusationDocument) -> str:
    view = document.accusation().equivocation.view
    return f"{document.name}, member {document.member}, in view {view} of epoch {document.epoch}"


def _votes(accusation: Accusation) -> dict[str, str]:
    equivocation = accusation.equivocation
    return {"signed": describe_vote(equivocation.first), "and": describe_vote(equivocation.second)}


def _print_verified(accusation: Accusation, genesis: Path | None) -> None:
    """What is proved, by what, and what is not."""
    index, key = accusation.equivocation.member, accusation.vote_key32.hex()
    whose = f"member {index}, {accusation.name}, as {genesis} says"
    unknown = f"not checked: the file says member {index}, {accusation.name}; give the chain's genesis with --genesis"
    print_fields(
        {
            "proved": "one key signed two votes that no honest member signs both",
            **_votes(accusation),
            "chain": f"{accusation.chain_id.hex()}, epoch {accusation.equivocation.epoch}",
            "vote key": key,
            "whose key": unknown if genesis is None else whose,
            "not proved": "why: its holder cheats, or it runs twice, or was stolen; when; that anybody lost anything",
        }
    )
