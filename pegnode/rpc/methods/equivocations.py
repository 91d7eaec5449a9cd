"""Methods about members who signed two votes that exclude each other."""

from pegnode.guilt.document import Accusation, AccusationDocument
from pegnode.rpc.methods.table import Handler
from pegnode.rpc.node_api import NodeApi


async def listequivocations(node: NodeApi) -> list[AccusationDocument]:
    """The proofs of members' faults that this node has, by member, epoch and view: each is the content of a file.

    Two votes of one member that no honest member signs both, with the key that signed them. Of each member eight at
    most are kept. Write one to a file with `peg evidence export`; anybody can check it with `peg evidence verify`.
    """
    accusations = (Accusation.of(item, node.rules) for item in node.store.equivocations())
    return [AccusationDocument.of(accusation) for accusation in accusations]


EQUIVOCATION_METHODS: tuple[Handler, ...] = (listequivocations,)
