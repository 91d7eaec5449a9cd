"""Certificates as messages: as many as fit beside what else has to go."""

from collections.abc import Iterator, Sequence
from typing import Final

from federation.certificate import Certificate
from pegnode.net.messages import CertificatesMessage

JUSTIFICATION_BYTES: Final = 150_000
"""Certificates that fit one message beside the largest block."""


def in_messages(certificates: Sequence[bytes]) -> Iterator[tuple[bytes, ...]]:
    """Certificates in order, in parts that fit one message beside the largest block; at least one part."""
    part: list[bytes] = []
    for certificate in certificates:
        if part and len(certificate) + sum(map(len, part)) > JUSTIFICATION_BYTES:
            yield tuple(part)
            part = []
        part.append(certificate)
    yield tuple(part)


def certificates_message(certificates: tuple[Certificate, ...]) -> CertificatesMessage:
    """All of them in one message."""
    return CertificatesMessage(tuple(certificate.encode() for certificate in certificates))
