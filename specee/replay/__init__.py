"""Policies over recorded texts, without a model: a new policy is judged in seconds.

A trace has, for every position of some texts, what each layer would draft there and how sure it is. Policies
are pure, so a plan can be carried out on that, at the prices of a latency table. :mod:`.record` makes traces,
and is the only module here that needs a model.
"""

from specee.replay.files import read_trace, write_trace
from specee.replay.result import Replay, ReplayedRound
from specee.replay.simulate import replay
from specee.replay.splice import Followed, Recovery, Spliced, followed, recoveries, splice
from specee.replay.statics import Static, Statics, best_static
from specee.replay.trace import POSITIONS, Text, Trace

__all__ = [
    "POSITIONS",
    "Followed",
    "Recovery",
    "Replay",
    "ReplayedRound",
    "Spliced",
    "Static",
    "Statics",
    "Text",
    "Trace",
    "best_static",
    "followed",
    "read_trace",
    "recoveries",
    "replay",
    "splice",
    "write_trace",
]
