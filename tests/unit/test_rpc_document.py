"""docs/rpc.md names what is served, all of it and nothing else."""

import re
from pathlib import Path

from fastapi.routing import APIRoute

from pegnode.rpc.cookie import Credentials
from pegnode.rpc.deposit_states import DepositStatus
from pegnode.rpc.errors import RpcCode
from pegnode.rpc.server import create_app, method_table
from tests.support.rpc_node import FakeNode

DOCUMENT = (Path(__file__).parents[2] / "docs" / "rpc.md").read_text()


def quoted(pattern: str) -> set[str]:
    """What stands in backquotes and looks like this."""
    return set(re.findall(rf"`({pattern})`", DOCUMENT))


def test_document_names_every_method() -> None:
    verbs = "get|list|send|test|claim|register|estimate|plan|judge|submit"
    named = quoted(rf"(?:{verbs})[a-z]+|sign(?:statement|record)|audit|help|stop|uptime")
    assert named - set(DepositStatus) == {method.name for method in method_table()}


def test_document_names_every_error() -> None:
    numbers = {int(text) for line in re.findall(r"^\| (-[-0-9, ]+) \|", DOCUMENT, re.M) for text in line.split(",")}
    assert numbers == set(RpcCode)


def test_document_names_every_path(tmp_path: Path) -> None:
    node = FakeNode(tmp_path / "chain")
    app = create_app(node, Credentials.generate())
    node.close()
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    served = {(method, route.path) for route in routes for method in route.methods or ()}
    posted = {("POST", path.removeprefix("POST ")) for path in quoted(r"POST /[a-z]*")}
    assert served == posted | {("GET", path) for path in quoted(r"/[a-z][^`]*")}
