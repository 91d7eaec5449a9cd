"""The node that a wallet asks, over REST. Synchronous; every call ends, though BDK waits for a silent node for ever."""

import re
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import bdkpython as bdk
import httpx

from bridge.bitcoin.identifiers import BlockHash, hash_to_hex
from pegnode.plain_http import no_authorities
from pegnode.wallet.errors import WalletError, WalletReason

HELLO_TIMEOUT_SECONDS = 5.0
"""For one small answer."""
SCAN_TIMEOUT_SECONDS = 120.0
"""For all answers of one scan or broadcast."""
STOP_GAP = 20
"""Unused addresses in a row after which a full scan ends. Source: BIP44."""
PARALLEL_REQUESTS = 4

_MESSAGE = re.compile(r'"message":"((?:[^"\\]|\\.)*)"')

T = TypeVar("T")


class NodeConnection:
    """One node. url: such as http://127.0.0.1:18900.  genesis_hash: of the chain that it must be on."""

    def __init__(
        self, url: str, genesis_hash: BlockHash, *, scan_timeout_seconds: float = SCAN_TIMEOUT_SECONDS
    ) -> None:
        self._url = url.rstrip("/")
        self._genesis_hash = genesis_hash
        self._scan_timeout_seconds = scan_timeout_seconds

    def check(self) -> None:
        """Raise WalletError (NODE_UNREACHABLE, WRONG_CHAIN) unless the node answers and is on the chain."""
        timeout = min(HELLO_TIMEOUT_SECONDS, self._scan_timeout_seconds)
        try:
            response = httpx.get(
                f"{self._url}/block-height/0", timeout=timeout, trust_env=False, verify=no_authorities()
            )
        except httpx.TimeoutException as error:
            raise self._silent() from error
        except httpx.HTTPError as error:
            detail = f"no node answers at {self._url}; does its process run?"
            raise WalletError(WalletReason.NODE_UNREACHABLE, detail) from error
        if response.status_code != httpx.codes.OK:
            detail = f"what answers at {self._url} is no node (HTTP {response.status_code})"
            raise WalletError(WalletReason.NODE_UNREACHABLE, detail)
        if response.text.strip() != hash_to_hex(self._genesis_hash):
            raise WalletError(WalletReason.WRONG_CHAIN, f"the node at {self._url} is on another chain")

    def full_scan(self, wallet: bdk.Wallet) -> bdk.Update:
        """Look for every address of the wallet's descriptors. Raises WalletError."""
        request = wallet.start_full_scan().build()
        return self._ask(lambda client: client.full_scan(request, STOP_GAP, PARALLEL_REQUESTS))

    def sync(self, wallet: bdk.Wallet) -> bdk.Update:
        """Look for the addresses that the wallet has shown. Raises WalletError."""
        request = wallet.start_sync_with_revealed_spks().build()
        return self._ask(lambda client: client.sync(request, PARALLEL_REQUESTS))

    def broadcast(self, transaction: bdk.Transaction) -> None:
        """Hand a transaction to the node. Raises WalletError (REJECTED, NODE_UNREACHABLE, WRONG_CHAIN)."""
        self._ask(lambda client: client.broadcast(transaction))

    def _ask(self, question: Callable[[bdk.EsploraClient], T]) -> T:
        self.check()
        call = _BoundedCall(lambda: question(bdk.EsploraClient(self._url)))
        if not call.wait(self._scan_timeout_seconds):
            raise self._silent()
        try:
            return call.result()
        except bdk.EsploraError.HttpResponse as error:
            raise WalletError(WalletReason.REJECTED, _node_message(error)) from error
        except bdk.EsploraError as error:
            detail = f"the node at {self._url} failed to answer: {error}"
            raise WalletError(WalletReason.NODE_UNREACHABLE, detail) from error

    def _silent(self) -> WalletError:
        return WalletError(WalletReason.NODE_UNREACHABLE, f"the node at {self._url} did not answer in time")


class _BoundedCall(Generic[T]):
    """A call in a thread of its own, which is left behind when it does not return."""

    def __init__(self, call: Callable[[], T]) -> None:
        self._call = call
        self._value: list[T] = []
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value.append(self._call())
        except Exception as error:  # noqa: BLE001 -- raised again by `result`, in the thread that waits
            self._error = error

    def wait(self, seconds: float) -> bool:
        """Whether it returned within this time."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> T:
        """What it returned; raises what it raised."""
        if self._error is not None:
            raise self._error
        return self._value[0]


def _node_message(error: bdk.EsploraError.HttpResponse) -> str:
    """The node's own words, without what surrounds them."""
    found = _MESSAGE.search(str(error).replace('\\"', '"'))
    return found.group(1) if found else str(error)
