"""Measurements: what README and the issues quote is made here. Nothing in tests/ is timed.

Installed as ``specee.bench``, where ``specee bench`` finds it; ``python -m bench.decode.speed`` runs the same
file from a checkout. Imports within are relative, so that both names work.
"""
