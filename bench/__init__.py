"""Measurements: what README and the issues quote is made here. Nothing in tests/ is timed."""
