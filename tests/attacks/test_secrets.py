"""A secret in a log: keys that were never stolen, only written down by the program that held them.

Logs are kept, copied and sent to others when something is wrong, which is when a careless line is written. Everything
that a whole federation says and writes is searched in tests/functional/feature_secrets.py.
"""

import traceback

import pytest
import structlog

from bridge.l1.credentials import PasswordAuth
from federation import signer as signer_module
from federation.certificate import NO_BLOCK, VoteKind
from federation.passphrase import Passphrase
from pegnode.config import LogLevel
from pegnode.logs import start_logging
from tests.support.secret_search import key_spellings, search, text_spellings
from tests.support.signers import federation


def test_whatever_is_logged_shows_no_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A careless line logs the very objects that hold keys, and a crash amid a signature logs its whole traceback."""
    members = federation(4)
    secrets, signer = members.secrets[1], members.signer(1)
    passphrase, login = Passphrase("a cow jumps over the moon"), PasswordAuth("rpc", "hunter2 hunter2 hunter2")
    held = {
        **{name: key_spellings(getattr(secrets, name)) for name in ("vote", "custody", "transport")},
        "passphrase": text_spellings("a cow jumps over the moon"),
        "password": text_spellings(login.password),
    }

    def fail(*_: object) -> bytes:
        raise RuntimeError("the machine is broken")

    start_logging(LogLevel.DEBUG)
    try:
        log = structlog.get_logger()
        for value in (secrets, signer, passphrase, login, [secrets], {"keys": secrets}):
            log.warning(f"careless {value}", value=value, text=str(value), shown=repr(value))
        monkeypatch.setattr(signer_module, "schnorr_sign", fail)
        try:
            signer.sign_vote(VoteKind.NULLIFY, 0, 7, NO_BLOCK)
        except RuntimeError as error:
            log.exception("signing failed", signer=signer)
            log.warning("again", error=error, stack="".join(traceback.format_exception(error)))
        said = capsys.readouterr().err.encode()
        log.warning("planted", key=secrets.custody.hex())
        planted = capsys.readouterr().err.encode()
    finally:
        structlog.reset_defaults()
    assert said.count(b"careless") == 6
    assert b"the machine is broken" in said
    assert list(search("the log", said, held)) == []
    assert [found.secret for found in search("the log", planted, held)] == ["custody"]
