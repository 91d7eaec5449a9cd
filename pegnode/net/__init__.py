"""How nodes talk to one another: the peer-to-peer transport, its in-memory twin, and the messages it carries."""
