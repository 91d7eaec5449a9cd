"""Strategies for transactions of any shape."""

from hypothesis import strategies as st

from bridge.bitcoin.amounts import MAX_MONEY_SATS
from bridge.bitcoin.identifiers import OutPoint, Script, Txid
from bridge.bitcoin.transaction import Transaction, TxIn, TxOut

U32 = st.integers(0, 0xFFFFFFFF)
HASHES = st.binary(min_size=32, max_size=32)
OUTPOINTS = st.builds(lambda txid, vout: OutPoint(Txid(txid), vout), HASHES, U32)
WITNESSES = st.lists(st.binary(max_size=80), max_size=4).map(tuple)
INPUTS = st.builds(TxIn, OUTPOINTS, st.binary(max_size=60), U32, WITNESSES)
OUTPUTS = st.builds(lambda value, script: TxOut(value, Script(script)), st.integers(0, MAX_MONEY_SATS), st.binary())
TRANSACTIONS = st.builds(
    Transaction,
    U32,
    st.lists(INPUTS, min_size=1, max_size=4).map(tuple),
    st.lists(OUTPUTS, min_size=1, max_size=4).map(tuple),
    U32,
)
"""Well-formed ones: what `Transaction.parse` accepts."""
