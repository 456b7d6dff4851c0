"""The generation loop: observe, plan, run, commit."""

from specee.engine.checks import get_ready
from specee.engine.latency import LatencyMeter
from specee.engine.loop import BURST, Generation
from specee.engine.sequence import ActiveSequence, Processor, Request, Stop, continue_text, reserve
from specee.engine.statistics import Statistics

__all__ = [
    "BURST",
    "ActiveSequence",
    "Generation",
    "LatencyMeter",
    "Processor",
    "Request",
    "Statistics",
    "Stop",
    "continue_text",
    "get_ready",
    "reserve",
]
