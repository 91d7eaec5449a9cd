"""The way out of a federation that has lost its quorum: what can be recovered, PSBT files, and a drill."""
