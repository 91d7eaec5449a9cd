"""Proofs of a member's fault as files, and what they prove in words."""
