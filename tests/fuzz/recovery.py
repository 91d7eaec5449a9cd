"""The decoders of what holders of recovery keys hand to one another."""

from bridge.errors import MalformedError, Rejected
from bridge.psbt import Psbt
from bridge.recovery import Origin
from bridge.recovery_signing import RecoveryRequest
from tests.fuzz.decoders import Decoder
from tests.support.recovery import ORIGINS, TERMS, coin, planned, signed


def recovery_decoders() -> tuple[Decoder, ...]:
    """All of them. A PSBT's encoding has one order of many."""
    psbt = planned([coin(0), coin(1)])
    samples = (psbt.encode(), signed(psbt, 0).psbt.encode())

    def read_request(data: bytes) -> RecoveryRequest:
        return RecoveryRequest.read(Psbt.decode(data), TERMS)

    return (
        Decoder("bridge.psbt:Psbt.decode", Psbt.decode, (Rejected,), samples),
        Decoder("bridge.recovery_signing:RecoveryRequest.read", read_request, (Rejected,), samples),
        Decoder(
            "bridge.recovery:Origin.decode",
            Origin.decode,
            (MalformedError,),
            tuple(origin.encode() for origin in ORIGINS),
            Origin.encode,
        ),
    )
