"""Where a node gets its signatures from: a port, the signer in its own process, and the one across a socket."""
