"""`peg federation init`: keys and configurations for the members of a new federation."""

import secrets
from pathlib import Path
from typing import Annotated

import typer

from bridge.bitcoin.identifiers import BlockHash, hash_from_hex
from bridge.errors import MalformedError
from bridge.state import Anchor
from pegnode.cli.terminal import errors_as_one_line, out, print_fields
from pegnode.clock import now_ms
from pegnode.config import L1Config
from pegnode.federation_setup import initialize
from pegnode.local_federation import template_text

federation_app = typer.Typer(no_args_is_help=True, help="Set up a federation.")


def _hash_text(text: str) -> str:
    """The text if it is a hash in hex; raises typer.BadParameter."""
    try:
        hash_from_hex(text)
    except MalformedError as error:
        raise typer.BadParameter(str(error)) from error
    return text


@federation_app.command("init")
def init(
    directory: Annotated[Path, typer.Argument(help="Where to write; absent or empty.")],
    l1_url: Annotated[str, typer.Option("--l1-url", help="The Bitcoin node, http://host:port.")],
    l1_cookie: Annotated[Path, typer.Option("--l1-cookie", help="Its cookie file.")],
    anchor_height: Annotated[
        int, typer.Option("--anchor-height", min=0, help="Height of the first L1 block referred to.")
    ],
    anchor_hash: Annotated[
        str, typer.Option("--anchor-hash", help="Its hash: a block that is buried for good.", callback=_hash_text)
    ],
    template: Annotated[
        Path | None,
        typer.Option(
            "--template",
            help="Genesis parameters; see configs/.",
            exists=True,
            dir_okay=False,
            show_default="configs/local.toml",
        ),
    ] = None,
    base_port: Annotated[
        int | None,
        typer.Option("--base-port", help="First port on this machine; two for each process. [default: free ones]"),
    ] = None,
) -> None:
    """Make a genesis, keys and configurations for all members at once.

    One dealer, this process, sees every secret: good for one machine and for tests, and for nothing else.
    """
    with errors_as_one_line():
        files = initialize(
            directory,
            template_text() if template is None else template.read_text(encoding="utf-8"),
            l1=L1Config(url=l1_url, cookie_file=l1_cookie),
            anchor=Anchor(anchor_height, BlockHash(hash_from_hex(anchor_hash))),
            time_ms=now_ms(),
            random_bytes=secrets.token_bytes,
            base_port=base_port,
        )
        print_fields({"genesis": files.genesis, "chain id": files.chain_id.hex()})
        for path in files.functionaries:
            out.print(f"start a member with: peg functionary run --config {path}", markup=False)
        out.print(f"start a full node with: peg node run --config {files.node}", markup=False)
        out.print(files.notice, markup=False)


@federation_app.callback()
def _group() -> None:
    """Keep `init` a subcommand."""
