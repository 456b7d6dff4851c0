"""AMX's registers, which a process has to ask Linux for: it asks where they are wanted, and may be told no.

Linux says no where a thread has a small alternate stack for signals, and refuses such a stack to a process
that has the registers. Each case has a process of its own: what is granted stays so.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from specee import _cpu

pytestmark = pytest.mark.skipif(
    "amx" not in _cpu.supported_isas(), reason=f"no AMX: this machine has {_cpu.supported_isas()}"
)

PROGRAM = """
import ctypes
from specee import _cpu
from specee.errors import ConfigurationError

class Stack(ctypes.Structure):
    _fields_ = [("at", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]

memory = ctypes.create_string_buffer(8192)

def small_stack():
    stack = Stack(ctypes.addressof(memory), 0, len(memory))
    return ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) == 0

"""


def run(lines: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM + lines], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_other_instruction_sets_ask_for_nothing() -> None:
    run("""
assert "amx" in _cpu.supported_isas()
assert _cpu.select_isa("avx512bf16") == "avx512bf16"
assert small_stack()
""")


def test_it_asks_where_it_is_chosen() -> None:
    run("""
assert _cpu.select_isa("") == "amx"
assert not small_stack()
""")


def test_refused_it_is_not_chosen_and_says_so() -> None:
    run("""
assert small_stack()
assert _cpu.select_isa("") == "avx512bf16"
try:
    _cpu.select_isa("amx")
except ConfigurationError as error:
    assert "the system refuses it" in str(error), error
else:
    raise AssertionError("not refused")
""")
