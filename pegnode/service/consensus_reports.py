"""What the consensus machine finds out and only people can act on: it is logged."""

from typing import assert_never

import structlog

from bridge.bitcoin.identifiers import hash_to_hex
from pegnode.consensus import actions as act

log = structlog.get_logger()

Report = act.Refuse | act.ReportInvalidCertified | act.ReportConflictingCertificates


def report(action: Report) -> None:
    """What only people can act on."""
    match action:
        case act.Refuse(reason, detail):
            log.debug("not used", reason=reason, detail=detail)
        case act.ReportInvalidCertified(block_hash):
            log.error("a quorum certified an invalid block", hash=hash_to_hex(block_hash))
        case act.ReportConflictingCertificates(first_certificate, second_certificate):
            log.error(
                "conflicting certificates",
                views=[first_certificate.view, second_certificate.view],
                kinds=[first_certificate.kind.name, second_certificate.kind.name],
            )
        case _:
            assert_never(action)
