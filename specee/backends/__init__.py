"""Interpreters of the same verbs: ``reference`` (torch, plain), ``cpu`` (C++) and ``cuda``."""

from specee.backends.protocol import Backend, SequenceState
from specee.backends.select import make_backend, missing

__all__ = ["Backend", "SequenceState", "make_backend", "missing"]
