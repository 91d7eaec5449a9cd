"""The claim scripts for which deposit addresses were handed out: where members look for deposits.

The registry is a hint. Losing it loses nothing: a deposit can be claimed by hand from its outpoint and claim script.
"""

from collections.abc import Callable, Iterator
from typing import Final

from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script import classify
from bridge.custody import CoinKind, Custody, CustodyPolicy, ReserveScript, reserve_script
from bridge.errors import Reason
from pegnode.errors import Refusal
from pegnode.storage.store import ChainStore

MAX_REGISTERED: Final = 100_000
"""About 100 bytes each on disk, and a reserve script derived for each at start."""


class RegistryReason(Reason):
    """Why a claim script is not registered."""

    FULL = "registry-full"
    CLAIM_SCRIPT_TYPE = "registry-claim-script-type"


class RegistrationRefused(Refusal):
    """A claim script that is not registered. reason: RegistryReason."""


class DepositRegistry:
    """Claim scripts by the reserve script that deposits to them pay. policy: of the epoch of new addresses."""

    def __init__(self, store: ChainStore, custody: Custody, epoch: int, now_ms: Callable[[], int]) -> None:
        self._store = store
        self.policy: CustodyPolicy = custody.policy(epoch)
        self._now_ms = now_ms
        self._claim_scripts: dict[Script, Script] = {
            self.reserve(claim_script).script: claim_script for claim_script in store.deposit_scripts()
        }

    def reserve(self, claim_script: Script) -> ReserveScript:
        """What a deposit for `claim_script` pays."""
        return reserve_script(self.policy, CoinKind.DEPOSIT, claim_script)

    def add(self, claim_script: Script) -> bool:
        """Register a claim script; whether it was new. Raises RegistrationRefused."""
        if classify(claim_script) is None:
            raise RegistrationRefused(RegistryReason.CLAIM_SCRIPT_TYPE, "a claim script is one of the five types")
        script = self.reserve(claim_script).script
        if script in self._claim_scripts:
            return False
        if len(self._claim_scripts) >= MAX_REGISTERED:
            raise RegistrationRefused(RegistryReason.FULL, f"{MAX_REGISTERED} addresses are registered")
        self._store.keep_deposit_script(claim_script, self._now_ms())
        self._claim_scripts[script] = claim_script
        return True

    def items(self) -> Iterator[tuple[Script, Script]]:
        """Each deposit's reserve script with its claim script."""
        return iter(list(self._claim_scripts.items()))

    def claim_scripts(self) -> tuple[Script, ...]:
        """All registered claim scripts."""
        return tuple(self._claim_scripts.values())
