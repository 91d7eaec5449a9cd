"""Reading the tests: a reason counts as asserted only where a test says what it expects."""

import pytest

from scripts.asserting_tests import asserting_tests, names_by_reason

REASON = ("x-reason", "XReason", "REASON")


def names(source: str) -> tuple[str, ...]:
    """The tests in this module that assert the reason."""
    return names_by_reason([REASON], asserting_tests({"tests/unit/test_x.py": source}))["x-reason"]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("def test_x():\n    assert f() is XReason.REASON\n", id="assert"),
        pytest.param("async def test_x():\n    assert f() is errors.XReason.REASON\n", id="asynchronous"),
        pytest.param("def test_x():\n    assert 'failed: x-reason: why' in f()\n", id="text"),
        pytest.param("def test_x():\n    with refused(XReason.REASON):\n        f()\n", id="with"),
        pytest.param("def test_x():\n    refused(f, XReason.REASON)\n", id="helper"),
        pytest.param("async def test_x():\n    await node.expect('refused', reason='x-reason')\n", id="expect"),
        pytest.param("@pytest.mark.parametrize('r', [XReason.REASON])\ndef test_x(r):\n    pass\n", id="parametrize"),
        pytest.param("R = {1: XReason.REASON}\n\n\ndef test_x():\n    assert f() is R[1]\n", id="constant"),
        pytest.param("def test_x():\n    want = XReason.REASON\n    assert f() is want\n", id="variable"),
        pytest.param("def test_x():\n    for r in [XReason.REASON]:\n        assert f() is r\n", id="loop"),
        pytest.param(
            "C = [XReason.REASON]\n\n\n@pytest.mark.parametrize('r', C)\ndef test_x(r):\n    pass\n",
            id="constant in parametrize",
        ),
    ],
)
def test_reason_is_asserted(source: str) -> None:
    assert names(source) == ("test_x",)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("def test_x():\n    node.failure = Rejected(XReason.REASON)\n    assert f()\n", id="input"),
        pytest.param("def test_x():\n    raise Rejected(XReason.REASON)\n", id="raised"),
        pytest.param(
            "def test_x():\n    peers.drop(peer, XReason.REASON)\n    assert f()\n", id="argument of a method"
        ),
        pytest.param("def helper():\n    assert f() is XReason.REASON\n", id="no test"),
        pytest.param("def test_x():\n    assert f() is YReason.REASON\n", id="another enumeration"),
        pytest.param("def test_x():\n    assert 'x-reason-too' in f()\n", id="longer text"),
        pytest.param('def test_x():\n    """Of x-reason."""\n    assert f()\n', id="docstring"),
    ],
)
def test_reason_is_not_asserted(source: str) -> None:
    assert names(source) == ()


def test_single_word_is_no_reason() -> None:
    source = {"a": "def test_x():\n    assert 'closed' in f()\n"}
    assert names_by_reason([("closed", "XReason", "CLOSED")], asserting_tests(source)) == {"closed": ()}


def test_test_that_asserts_the_least_comes_first() -> None:
    source = (
        "def test_many():\n    assert f() in (XReason.REASON, XReason.OTHER)\n\n\n"
        "def test_one():\n    assert f() is XReason.REASON\n"
    )
    assert names(source) == ("test_one", "test_many")
