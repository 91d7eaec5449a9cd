"""Every state of a member's Bitcoin node: it is named, transfers go on, and it clears by itself."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bridge.l1.states import L1State
from pegnode.rpc.results import StatusReply
from tests.support import l1_proxy as faults
from tests.support.federation import CONFIRMATIONS, FederationUnderTest, eventually, fresh_address, running_federation
from tests.support.l1_proxy import NOT_FOUND, L1Proxy, lying
from tests.support.users import User, user_of

OTHER_BLOCK = "77" * 32
IDENTITIES = (L1State.TOO_OLD, L1State.WRONG_CHAIN)
"""What shows only when the node is asked who it is: after an outage, and else every ten seconds."""


@dataclass(frozen=True)
class Setting:
    """A federation of four. dave's Bitcoin node is behind a proxy; the user talks to alice."""

    federation: FederationUnderTest
    user: User
    proxy: L1Proxy
    password_file: Path

    def dave(self) -> StatusReply:
        """What dave says of himself."""
        return self.federation.status("dave")

    def await_state(self, state: L1State) -> StatusReply:
        """Wait until dave names a state, and return the words with which he did."""
        said: list[StatusReply] = []

        def is_named() -> bool:
            said.append(self.dave())
            return said[-1].l1.state == state

        eventually(is_named, f"dave says {state}")
        return said[-1]

    def await_recovery(self) -> None:
        """Wait until dave says that all is well again, and lacks nothing."""

        def is_well() -> bool:
            status = self.dave()
            assert status.halt_findings == []
            return status.l1.state == L1State.OK and status.waiting_for == []

        eventually(is_well, "dave lacks nothing")

    def forget_the_node(self) -> None:
        """Have dave's node away for a moment: at the next look, dave asks it again who it is."""
        with self.proxy.failing(faults.dropped):
            self.await_state(L1State.DOWN)

    def pay(self, *names: str) -> None:
        """A transfer that becomes final at these members, by default also at dave's."""
        self.user.wallet.sync(self.user.url)
        self.federation.await_final(self.user.send(fresh_address(), 10_000), names or ("alice", "dave"))

    def settle(self, *names: str) -> None:
        """Transfers until the anchor is as high as it can be with these members: what follows then needs no L1."""
        names = names or ("alice", "dave")

        def is_settled() -> bool:
            self.pay(*names)
            statuses = [self.federation.status(name) for name in names]
            return {item.anchor.height for item in statuses} == {(statuses[0].l1.height or 0) - CONFIRMATIONS + 1}

        eventually(is_settled, "the anchor is as high as it can be")

    def log(self) -> str:
        """All that dave has said."""
        return self.federation.local.log_path("dave").read_text()


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    with (
        running_federation(tmp_path_factory.mktemp("l1-states") / "federation") as federation,
        user_of(federation, "alice") as user,
        faults.l1_proxy(federation.local.bitcoind) as proxy,
    ):
        federation.local.stop_member("dave")
        password_file = faults.lead_through(proxy, federation.local.member_config_path("dave"))
        federation.local.start_member("dave")
        federation.local.wait_until_answering("dave")
        user.fund(40_000_000, deposits=8)
        setting = Setting(federation, user, proxy, password_file)
        setting.settle()
        yield setting


@contextmanager
def _password_changed(setting: Setting) -> Iterator[None]:
    """The Bitcoin node has a new password, of which the member's file learns at the end."""
    setting.proxy.password += "-changed"
    yield
    setting.password_file.write_text(setting.proxy.password)


@contextmanager
def _password_file_gone(setting: Setting) -> Iterator[None]:
    setting.password_file.rename(setting.password_file.with_suffix(".away"))
    yield
    setting.password_file.with_suffix(".away").rename(setting.password_file)


def _changed(method: str, **fields: Any) -> faults.Fault:
    """Some fields of one method's reply are others."""
    return lying(lambda called, _, result: {**result, **fields} if called == method else result)


def _first_block_differs(method: str, parameters: list[Any], result: Any) -> Any:
    return OTHER_BLOCK if (method, parameters) == ("getblockhash", [0]) else result


def _no_block_is_known(method: str, _: list[Any], result: Any) -> Any:
    """As if the chain were another one from its second block on."""
    return {"getblockhash": OTHER_BLOCK, "getblockheader": NOT_FOUND}.get(method, result)


FAULTS: dict[str, tuple[L1State, faults.Fault]] = {
    "closed connections": (L1State.DOWN, faults.dropped),
    "no answers": (L1State.SILENT, faults.silent),
    "warm-up": (L1State.STARTING, faults.rpc_error(-28, "Loading block index…")),
    "internal error": (L1State.ERRORING, faults.canned(500, b"Internal Server Error")),
    "half an answer": (L1State.GARBLED, faults.cut_short),
    "endless answer": (L1State.GARBLED, faults.canned(200, b" " * faults.HUGE_BYTES)),
    "old version": (L1State.TOO_OLD, _changed("getnetworkinfo", version=240_100, subversion="/Satoshi:24.1.0/")),
    "initial download": (
        L1State.INITIAL_DOWNLOAD,
        _changed("getblockchaininfo", initialblockdownload=True, headers=900),
    ),
    "pruned": (L1State.PRUNED, _changed("getblockchaininfo", pruned=True, pruneheight=900)),
    "slow": (L1State.SLOW, faults.slow(2.5)),
    "another chain": (L1State.WRONG_CHAIN, lying(_first_block_differs)),
}
"""What a test of the client alone does not show; see `test_l1_monitor.py` for every state and way of failing."""


def _put_right(setting: Setting, cause: AbstractContextManager[None], state: L1State) -> StatusReply:
    """Have a cause, see what dave names it, that a transfer gets through, and that dave recovers; his words then."""
    if state in IDENTITIES:
        setting.forget_the_node()
    with cause:
        seen = setting.await_state(state)
        setting.pay()
    if state in IDENTITIES:
        setting.forget_the_node()
    setting.await_recovery()
    return seen


@pytest.mark.parametrize("name", FAULTS)
def test_state_is_named_and_clears_by_itself(setting: Setting, name: str) -> None:
    state, fault = FAULTS[name]
    seen = _put_right(setting, setting.proxy.failing(fault), state)
    assert seen.l1.remedy == state.remedy
    assert seen.l1.reachable == state.answers
    assert seen.l1.since_ms > seen.started_ms
    assert any(item.startswith(f"the Bitcoin node: {state}") for item in seen.waiting_for) == state.waits


def test_refused_connection_is_down(setting: Setting) -> None:
    _put_right(setting, setting.proxy.closed(), L1State.DOWN)


def test_rotated_password_is_refused_until_the_file_has_it(setting: Setting) -> None:
    _put_right(setting, _password_changed(setting), L1State.CREDENTIALS_REFUSED)


def test_password_file_that_is_gone_is_missing_only_while_the_node_runs(setting: Setting) -> None:
    setting.federation.local.stop_member("dave")
    with _password_file_gone(setting):
        setting.federation.local.start_member("dave")
        setting.federation.local.wait_until_answering("dave")
        assert str(setting.password_file) in setting.await_state(L1State.CREDENTIALS_MISSING).l1.detail
        setting.pay()
        with setting.proxy.closed():
            setting.await_state(L1State.DOWN)
        setting.await_state(L1State.CREDENTIALS_MISSING)
    setting.await_state(L1State.OK)


def test_answers_that_stand_still_are_behind(setting: Setting) -> None:
    federation = setting.federation
    frozen = faults.Frozen()
    with setting.proxy.failing(frozen):
        eventually(lambda: frozen.has_answered("getblockchaininfo"), "dave asked for the tip")
        federation.mine(3)
        assert "behind" in setting.await_state(L1State.BEHIND).l1.detail
        setting.pay("alice")
    setting.await_state(L1State.OK)
    setting.settle()


@pytest.mark.parametrize("name", ["down", "silent", "garbled", "wrong-chain"])
def test_member_starts_in_any_state_and_goes_on(setting: Setting, name: str) -> None:
    federation, proxy = setting.federation, setting.proxy
    causes: dict[str, AbstractContextManager[None]] = {
        "down": proxy.closed(),
        "silent": proxy.failing(faults.silent),
        "garbled": proxy.failing(faults.canned(200, b"[]")),
        "wrong-chain": proxy.failing(lying(_first_block_differs)),
    }
    federation.local.stop_member("dave")
    with causes[name]:
        federation.local.start_member("dave")
        federation.local.wait_until_answering("dave")
        setting.await_state(next(state for state in L1State if state == name))
        setting.pay()
    if name in IDENTITIES:
        setting.forget_the_node()
    setting.await_state(L1State.OK)
    setting.pay()


# Lies of a moment


LIES: dict[str, Callable[[str, list[Any], Any], Any]] = {
    "no block is known": _no_block_is_known,
    "heights one too low": lambda method, _, result: (
        {**result, "height": result["height"] - 1} if method == "getblockheader" else result
    ),
    "blocks without transactions": lambda method, _, result: (
        {**result, "nTx": 7} if method == "getblockheader" else result
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_lie_of_a_moment_is_kept_by_nobody(setting: Setting, name: str) -> None:
    """While it lasts, a deposit is claimed, of which dave can't confirm anything; then he follows."""
    federation, user = setting.federation, setting.user
    before = federation.status("dave").height
    with setting.proxy.failing(lying(LIES[name])):
        user.fund(1_000_000)  # evidence and anchors, for which the other three are enough
        assert federation.status("alice").height > before
    federation.agreement()
    setting.await_recovery()


def test_no_outage_is_logged_as_an_error_or_at_every_look(setting: Setting) -> None:
    lines = setting.log().splitlines()
    assert [line for line in lines if "level=error" in line or "Traceback" in line] == []
    with setting.proxy.failing(faults.canned(200, b"null")):
        setting.await_state(L1State.GARBLED)
        setting.pay()
        setting.pay()
    setting.await_recovery()
    told = [line for line in setting.log().splitlines()[len(lines) :] if "level=warning" in line]
    assert len(told) == 1, told
    assert "the Bitcoin node is garbled" in told[0]
