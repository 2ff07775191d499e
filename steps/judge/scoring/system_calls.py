"""System calls that generated code may not make, as a filter for bubblewrap (seccomp).

Those for memory outside of a process's limits: files without a name, shared segments and mappings.
And those that reach out of the sandbox or deep into the kernel: key rings, rings of I/O, tracing,
BPF. Such a call gets EPERM.
"""

import platform
import struct

SYSTEM_CALLS = {
    "x86_64": (
        0xC000003E,
        9,
        {
            "memfd_create": 319,
            "memfd_secret": 447,
            "shmget": 29,
            "shmat": 30,
            "msgget": 68,
            "semget": 64,
            "mq_open": 240,
            "add_key": 248,
            "request_key": 249,
            "keyctl": 250,
            "io_uring_setup": 425,
            "perf_event_open": 298,
            "bpf": 321,
            "userfaultfd": 323,
            "ptrace": 101,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
        },
    ),
    "aarch64": (
        0xC00000B7,
        222,
        {
            "memfd_create": 279,
            "memfd_secret": 447,
            "shmget": 194,
            "shmat": 196,
            "msgget": 186,
            "semget": 190,
            "mq_open": 180,
            "add_key": 217,
            "request_key": 218,
            "keyctl": 219,
            "io_uring_setup": 425,
            "perf_event_open": 241,
            "bpf": 280,
            "userfaultfd": 282,
            "ptrace": 117,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
        },
    ),
}
"""By machine: its AUDIT_ARCH, the number of mmap, and the numbers that are refused (Linux's
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h)."""

X32 = 0x40000000
"""Added to the numbers of x86_64's 32-bit pointers: the same calls by other numbers."""

SHARED_AND_NAMELESS = 0x21
"""MAP_SHARED and MAP_ANONYMOUS of mmap's flags: memory that no process's limit counts."""

_NUMBER, _ARCHITECTURE, _FLAGS = 0, 4, 16 + 8 * 3
"""Offsets in struct seccomp_data; the flags are mmap's fourth argument."""

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _EPERM = 0x7FFF0000, 0x00050001

_Line = tuple[int, int, str, str]
"""Operation, operand, and the labels for true and for false ("" is the next line)."""


def filter_of(machine: str = platform.machine()) -> bytes | None:
    """The program, an array of struct sock_filter; None for a machine whose numbers aren't here."""
    if machine not in SYSTEM_CALLS:
        return None
    architecture, mmap, refused = SYSTEM_CALLS[machine]
    lines: list[_Line] = [
        (_LOAD, _ARCHITECTURE, "", ""),
        (_EQUAL, architecture, "", "refuse"),
        (_LOAD, _NUMBER, "", ""),
        (_AT_LEAST, X32, "refuse", ""),
        *((_EQUAL, number, "refuse", "") for number in sorted(refused.values())),
        (_EQUAL, mmap, "", "allow"),
        (_LOAD, _FLAGS, "", ""),
        (_AND, SHARED_AND_NAMELESS, "", ""),
        (_EQUAL, SHARED_AND_NAMELESS, "refuse", "allow"),
    ]
    ends = {"allow": len(lines), "refuse": len(lines) + 1}
    program = b""
    for place, (operation, operand, then, otherwise) in enumerate(lines):
        jumps = (ends[name] - place - 1 if name else 0 for name in (then, otherwise))
        program += struct.pack("=HBBI", operation, *jumps, operand)
    for verdict in (_ALLOW, _EPERM):
        program += struct.pack("=HBBI", _RETURN, 0, 0, verdict)
    return program
