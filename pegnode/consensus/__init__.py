"""Simplex consensus as a sans-IO state machine: events in, actions out."""
