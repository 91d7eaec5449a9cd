"""Measurements: `python -m bench`. Nothing is asserted, for machines differ; ratios say more than the numbers."""
