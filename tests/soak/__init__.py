"""Killing members at random moments under load, and looking for anything that this should not have changed."""
