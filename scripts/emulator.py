"""One emulated processor that runs one static Linux program: memory, loader and a few system calls."""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

PAGE = 4096
# Where things are; virtual addresses are physical addresses, in the first 4 GiB.
HEAP, MAPPINGS, STACK_TOP, PAGE_TABLES, ENTRY_STUB = (
    0x2000_0000,
    0x4000_0000,
    0x7FFF_0000,
    0x7800_0000,
    0x7900_0000,
)
# What SYSCALL jumps to: prefetcht0 [rax], which Bochs reports and which does nothing else, then jmp rcx.
STUB = bytes.fromhex("0f1808 ffe1")
CODE_SEGMENT, DATA_SEGMENT, TASK, TABLE = 0xA09B, 0xC093, 0x8B, 0x82

CR0 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1 << 1 | 1  # PG, WP, NE, ET, MP, PE
CR4 = 1 << 18 | 1 << 10 | 1 << 9 | 1 << 5  # OSXSAVE, OSXMMEXCPT, OSFXSR, PAE
EFER = 1 << 11 | 1 << 10 | 1 << 8 | 1  # NXE, LMA, LME, SCE
XCR0 = 0b1110_0111  # x87, SSE, AVX, and the three parts of AVX-512

WRITE, MMAP, MPROTECT, MUNMAP, BRK, SIGACTION, SIGMASK, WRITEV = 1, 9, 11, 10, 12, 13, 14, 20
MADVISE, EXIT, ARCH_PRCTL, FUTEX, SET_TID_ADDRESS, EXIT_GROUP, SET_ROBUST_LIST = (
    28,
    60,
    158,
    202,
    218,
    231,
    273,
)
NOTHING_TO_DO = {MPROTECT, MUNMAP, SIGACTION, SIGMASK, MADVISE, FUTEX, SET_TID_ADDRESS, SET_ROBUST_LIST}
ARCH_SET_FS = 0x1002
EINVAL, ENOSYS = -22, -38


class Memory:
    """Physical memory that appears, zeroed, where it is touched."""

    def __init__(self, bochs: ModuleType) -> None:
        self._bochs = bochs.memory
        self._pages: dict[int, int] = {}

    def page(self, address: int) -> int:
        """Host address of the page that holds ``address``."""
        number = address // PAGE
        if number not in self._pages:
            host = self._bochs.allocate_host_page()
            ctypes.memset(host, 0, PAGE)
            self._bochs.page_insert(number * PAGE, host)
            self._pages[number] = host
        return self._pages[number]

    def write(self, address: int, data: bytes) -> None:
        """Copy ``data`` in."""
        while data:
            offset = address % PAGE
            part = data[: PAGE - offset]
            ctypes.memmove(self.page(address) + offset, part, len(part))
            address, data = address + len(part), data[len(part) :]

    def read(self, address: int, size: int) -> bytes:
        """Copy ``size`` bytes out."""
        parts = []
        while size > 0:
            offset = address % PAGE
            count = min(size, PAGE - offset)
            parts.append(ctypes.string_at(self.page(address) + offset, count))
            address, size = address + count, size - count
        return b"".join(parts)


def load_program(memory: Memory, program: Path, arguments: Sequence[str]) -> tuple[int, int]:
    """Load a static ELF program and make its first stack frame; returns entry point and stack pointer."""
    data = program.read_bytes()
    entry, table = struct.unpack_from("<QQ", data, 24)
    size, count = struct.unpack_from("<HH", data, 54)
    headers = 0
    for index in range(count):
        kind, _, offset, address, _, length, *_ = struct.unpack_from("<IIQQQQQQ", data, table + index * size)
        if kind == 1:  # PT_LOAD
            memory.write(address, data[offset : offset + length])
            if offset <= table < offset + length:
                headers = address + table - offset
    top, pointers = STACK_TOP, []
    for text in [program.name, *arguments]:
        top -= len(text.encode()) + 1
        memory.write(top, text.encode())
        pointers.append(top)
    # The program headers, the page size, the entry point, and sixteen "random" bytes (here: the arguments).
    auxiliary = [(3, headers), (4, size), (5, count), (6, PAGE), (9, entry), (25, top), (0, 0)]
    words = [len(pointers), *pointers, 0, 0, *(word for pair in auxiliary for word in pair)]
    top = (top - 8 * len(words)) & ~0xF
    memory.write(top, struct.pack(f"<{len(words)}Q", *words))
    return entry, top


class Machine:
    """One processor in 64-bit mode and the program it runs."""

    def __init__(self, bochs: ModuleType, program: Path, arguments: Sequence[str]) -> None:
        self._bochs = bochs
        self._memory = Memory(bochs)
        self._session = bochs.Session()
        self._session.missing_page_handler = self._memory.page
        self._heap_end, self._next_mapping = HEAP, MAPPINGS
        self._status: int | None = None
        self._trouble = ""
        self._start(*load_program(self._memory, program, arguments))

    def run(self) -> int:
        """Run the program to its end; its exit status. Raises RuntimeError if the processor gives up."""
        hook = self._bochs.Hook()
        hook.prefetch_hint = self._system_call
        hook.exception = self._exception
        self._session.run([hook])
        if self._status is None:
            raise RuntimeError(f"the emulated program stopped: {self._trouble}")
        return self._status

    def _start(self, entry: int, stack: int) -> None:
        first = struct.pack("<Q", PAGE_TABLES + PAGE | 7)
        giants = struct.pack("<4Q", *(gigabyte << 30 | 0x87 for gigabyte in range(4)))
        self._memory.write(PAGE_TABLES, first)
        self._memory.write(PAGE_TABLES + PAGE, giants)
        self._memory.write(ENTRY_STUB, STUB)
        state = self._bochs.State()
        state.cr0, state.cr3, state.cr4, state.efer, state.xcr0 = CR0, PAGE_TABLES, CR4, EFER, XCR0
        state.mxcsr, state.mxcsr_mask, state.fpcw, state.fptw = 0x1F80, 0xFFFF, 0x37F, 0xFFFF
        state.rip, state.rsp, state.rflags = entry, stack, 2
        state.lstar, state.star, state.sfmask = ENTRY_STUB, 0x10 << 32, 0
        state.cs = self._segment(CODE_SEGMENT, 0x10)
        for name in ("ss", "ds", "es", "fs", "gs"):
            setattr(state, name, self._segment(DATA_SEGMENT, 0x18))
        state.tr, state.ldtr = self._segment(TASK, 0), self._segment(TABLE, 0)
        self._session.cpu.set_state(state)

    def _segment(self, attributes: int, selector: int) -> Any:
        segment = self._bochs.Segment()
        segment.present, segment.base, segment.limit = True, 0, 0xFFFF_FFFF
        segment.attr, segment.selector = attributes, selector
        return segment

    def _exception(self, session: Any, _cpu: int, vector: int, error: int) -> None:
        cpu = session.cpu
        self._trouble = f"exception {vector} (error {error}) at {cpu.rip:#x}, address {cpu.cr2:#x}"
        session.stop()

    def _system_call(self, session: Any, *_: int) -> None:
        cpu = session.cpu
        if not ENTRY_STUB <= cpu.rip < ENTRY_STUB + len(STUB):
            return  # a prefetch of the program's own
        result = self._answer(session, cpu.rax, cpu.rdi, cpu.rsi, cpu.rdx)
        cpu.rax = result & (1 << 64) - 1

    def _answer(self, session: Any, number: int, first: int, second: int, third: int) -> int:
        """Result of one system call, a negative error number if it failed."""
        if number in NOTHING_TO_DO:
            return 0
        if number in {EXIT, EXIT_GROUP}:
            self._status = first
            session.stop()
            return 0
        if number == WRITE:
            return self._print(self._memory.read(second, third))
        if number == WRITEV:
            pieces = struct.iter_unpack("<QQ", self._memory.read(second, 16 * third))
            return sum(self._print(self._memory.read(*piece)) for piece in pieces)
        if number == BRK:
            self._heap_end = max(self._heap_end, first)
            return self._heap_end
        if number == MMAP:
            begin = self._next_mapping
            self._next_mapping += -(-second // PAGE) * PAGE
            return begin
        if number == ARCH_PRCTL:
            return self._set_thread_pointer(session, first, second)
        return ENOSYS

    def _set_thread_pointer(self, session: Any, what: int, base: int) -> int:
        if what != ARCH_SET_FS:
            return EINVAL
        segment = session.cpu.fs
        segment.base = base
        session.cpu.fs = segment
        return 0

    def _print(self, text: bytes) -> int:
        sys.stdout.write(text.decode(errors="replace"))
        sys.stdout.flush()
        return len(text)
