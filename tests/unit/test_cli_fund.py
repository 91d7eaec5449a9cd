"""`peg fund`: how anyone gives to it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from pegnode.cli import fund
from pegnode.cli.home import Home

DONATION_ADDRESS = "bcrt1pezzqyry2j9pgwcglyt9tv352cvquxgl34vt87aewg7c90mrut6ysxys7an"


@pytest.fixture(autouse=True)
def _member_far_from_any_local_federation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member of a federation on regtest, whose machines each run one."""
    federation = SimpleNamespace(
        donation=SimpleNamespace(address=DONATION_ADDRESS), parameters={"coin_floor_sats": 1_000, "confirmations": 6}
    )
    genesis = SimpleNamespace(l1=SimpleNamespace(network="regtest"))
    monkeypatch.setattr(fund, "_federation", lambda _: federation)
    monkeypatch.setattr(Home, "genesis", lambda _: genesis)


def test_donation_without_a_local_federation_is_a_payment_link(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fund.donate(tmp_path, "0.01", "member.toml")
    assert capsys.readouterr().out == f"bitcoin:{DONATION_ADDRESS}?amount=0.01000000\n"
