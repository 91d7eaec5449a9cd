"""The claim scripts for which deposit addresses were handed out: where members look for deposits.

The registry is a hint. Losing an entry loses nothing: a deposit can be claimed by hand from its outpoint and claim
script. So when there are too many, some make room: the oldest of whoever handed in most of those that are there. So
nobody can keep others out by filling it, nor push out more of theirs than leaves each as many as it has itself.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from bridge.bitcoin.identifiers import Script
from bridge.bitcoin.script import classify
from bridge.custody import CoinKind, Custody, reserve_script
from bridge.deposits import ReserveTerms
from bridge.errors import Reason
from pegnode.errors import Refusal
from pegnode.storage.store import ChainStore

MAX_REGISTERED: Final = 20_000
"""About 100 bytes each on disk, and a reserve script derived for each at start, in 0.2 ms."""

OWN_USERS: Final = "own users"
BEFORE_START: Final = "before the start"
"""Who handed in what was registered through this node, and what an earlier run left; others are named by the caller."""


class RegistryReason(Reason):
    """Why a claim script is not registered."""

    CLAIM_SCRIPT_TYPE = "registry-claim-script-type"  # The claim script is none of the five types.


class RegistrationRefused(Refusal):
    """A claim script that is not registered. reason: RegistryReason."""


class DepositRegistry:
    """Registered claim scripts, and every reserve script, of every epoch, that members watch."""

    def __init__(self, store: ChainStore, custody: Custody, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._policies = sorted(custody.policies, key=lambda policy: policy.epoch, reverse=True)
        self._now_ms = now_ms
        self._listeners: list[Callable[[], None]] = []
        self._watched: dict[Script, tuple[Script, ...]] = {}
        self._by_source: defaultdict[str, dict[Script, None]] = defaultdict(dict)
        self._source_of: dict[Script, str] = {}
        self._terms: dict[Script, ReserveTerms] = {
            reserve_script(policy, kind).script: ReserveTerms(kind, policy.epoch, b"")
            for policy in self._policies
            for kind in (CoinKind.CHANGE, CoinKind.DONATION)
        }
        stored = store.deposit_scripts()
        for claim_script in sorted(stored, key=lambda script: stored[script]):
            self._enter(claim_script, BEFORE_START)

    def __contains__(self, claim_script: Script) -> bool:
        return claim_script in self._watched

    def __len__(self) -> int:
        return len(self._watched)

    @property
    def terms(self) -> Mapping[Script, ReserveTerms]:
        """Every watched script with what it stands for: registered deposits', change's and donations'."""
        return MappingProxyType(self._terms)

    def is_deposit(self, script: Script) -> bool:
        """Whether an output script is the deposit address of a registered claim script."""
        terms = self._terms.get(script)
        return terms is not None and terms.kind is CoinKind.DEPOSIT

    def terms_of(self, claim_script: Script) -> dict[Script, ReserveTerms]:
        """What a deposit for `claim_script`, registered or not, may pay: one script for each epoch, newest first."""
        return {
            reserve_script(policy, CoinKind.DEPOSIT, claim_script).script: ReserveTerms(
                CoinKind.DEPOSIT, policy.epoch, claim_script
            )
            for policy in self._policies
        }

    def scripts_of(self, claim_script: Script) -> tuple[Script, ...]:
        """These scripts; at once for a registered one."""
        return self._watched.get(claim_script) or tuple(self.terms_of(claim_script))

    def on_new(self, listener: Callable[[], None]) -> None:
        """Call `listener` when claim scripts were registered."""
        self._listeners.append(listener)

    def add(self, claim_scripts: Sequence[Script], source: str = OWN_USERS) -> list[Script]:
        """Register claim scripts; those that were new. source: who handed them in.

        Raises RegistrationRefused, with nothing registered.
        """
        new = [script for script in dict.fromkeys(claim_scripts) if script not in self]
        if any(classify(script) is None for script in new):
            raise RegistrationRefused(RegistryReason.CLAIM_SCRIPT_TYPE, "a claim script is one of the five types")
        if new:
            surplus = self._surplus(new, source)
            new = [script for script in new if script not in surplus]
            leaving = [script for script in surplus if script in self]
            self._store.keep_deposit_scripts(new, self._now_ms(), forget=leaving)
            for script in leaving:
                self._remove(script)
            for script in new:
                self._enter(script, source)
            for listener in self._listeners:
                listener()
        return new

    def _surplus(self, new: Sequence[Script], source: str) -> dict[Script, None]:
        """What there is too much of when `new` comes from `source`: the oldest of those who have most, one by one."""
        held = {name: deque(scripts) for name, scripts in self._by_source.items()}
        held.setdefault(source, deque()).extend(new)
        surplus: dict[Script, None] = {}
        for _ in range(len(self) + len(new) - MAX_REGISTERED):
            surplus[max(held.values(), key=len).popleft()] = None
        return surplus

    def claim_scripts(self) -> tuple[Script, ...]:
        """All registered claim scripts, oldest first."""
        return tuple(self._watched)

    def _enter(self, claim_script: Script, source: str) -> None:
        terms = self.terms_of(claim_script)
        self._watched[claim_script] = tuple(terms)
        self._terms.update(terms)
        self._by_source[source][claim_script] = None
        self._source_of[claim_script] = source

    def _remove(self, claim_script: Script) -> None:
        for script in self._watched.pop(claim_script):
            del self._terms[script]
        del self._by_source[self._source_of.pop(claim_script)][claim_script]
