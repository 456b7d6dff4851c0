"""The generation loop: observe, plan, run, commit."""

from specee.engine.loop import Generation
from specee.engine.sequence import ActiveSequence, Request, reserve

__all__ = ["ActiveSequence", "Generation", "Request", "reserve"]
