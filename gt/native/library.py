"""The kernels of ``gt/native/kernels``, compiled for this very processor where they are first used, in a second or two.

What the compiler makes is kept in the user's cache folder. Without a compiler, or with ``GT_NATIVE=0``, all that has
kernels here goes by PyTorch's own functions: the same results, apart from the last digits and from which random numbers
dropout draws.
"""

import ctypes
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch
from platformdirs import user_cache_path
from torch import Tensor, nn

from gt.transforms import plain

log = logging.getLogger(__name__)

SOURCES = Path(__file__).parent / "kernels"
COMPILERS = ("gcc", "cc", "clang")
# threads are those of PyTorch, by the library that it has loaded: not one of the linker's choice
COMPILE = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-ffp-contract=fast", "-fPIC", "-Wno-psabi", "-c"]
LINK = ["-shared"]
PATIENCE = 120  # seconds for the compiler, which is run twice
WORK = ".native-"  # how folders begin in which it works
ABANDONED = 600  # seconds after which such a folder is that of a process that was killed
SWITCH = "GT_NATIVE"
LEVELS = 2**32  # of a random number


OPERATIONS: Counter[str] = Counter()  # multiplications and additions so far, which PyTorch's counter does not see


class Unavailable(Exception):
    """Why there are no kernels here, in a phrase."""


def _compiler() -> list[str]:
    """The command of a C compiler: of ``CC``, or one that is installed."""
    try:
        wanted = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise Unavailable(f"CC is no command: {error}") from None
    if wanted:
        return wanted
    for name in COMPILERS:
        if path := shutil.which(name):
            return [path]
    raise Unavailable("there is no C compiler: install gcc, or name one by CC")


def _processor() -> str:
    """What a processor can do: code for another one may not run on this one, which shares the cache folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return " ".join(re.findall(r"^(?:model name|flags|Features)\s*:.*$", lines, re.MULTILINE)[:2])


def _name(compiler: list[str]) -> str:
    """Of the file: other sources, another compiler or another processor have one of their own."""
    parts = [*compiler, *COMPILE, *LINK, platform.platform(), _processor(), torch.__version__]
    content = b"\0".join([*map(str.encode, parts), *(path.read_bytes() for path in sorted(SOURCES.iterdir()))])
    return f"native-{hashlib.sha256(content).hexdigest()[:20]}.so"


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"the C compiler cannot be run: {error}") from None
    if done.returncode:
        said = (done.stderr.strip() or f"{command[0]} ended with {done.returncode}").splitlines()
        raise Unavailable(f"the C compiler failed: {next((line for line in said if 'error' in line), said[0])}")


def _compile(compiler: list[str], path: Path) -> None:
    """Write the library whole or not at all; several processes may do so at once."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=WORK) as folder:
        objects, library = Path(folder, "all.o"), Path(folder, "all.so")
        _run([*compiler, *COMPILE, str(SOURCES / "all.c"), "-o", str(objects)])
        _run([*compiler, *LINK, str(objects), "-o", str(library), "-lm"])
        os.replace(library, path)


def _clear(cached: Path) -> None:
    """Remove what processes left that were killed while they compiled."""
    with suppress(OSError):  # another process may be at it
        for folder in cached.glob(f"{WORK}*"):
            if time.time() - folder.stat().st_mtime > ABANDONED:
                shutil.rmtree(folder, ignore_errors=True)


def _load(path: Path) -> ctypes.CDLL:
    """Open the library, whose missing names PyTorch's threads must have."""
    real, number = ctypes.c_float, ctypes.c_int64
    address, level = ctypes.c_void_p, ctypes.c_uint32
    try:
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOW)
        library.attention_scratch.restype = ctypes.c_int64
        library.dropout.argtypes = [address, address, number, ctypes.c_uint64, level, real, number]
        library.linear_rows.argtypes = [*[address] * 4, *[number] * 4, address, number]
        library.linear_outer.argtypes = [*[address] * 3, *[number] * 4]
    except (OSError, AttributeError) as error:  # a compiler of C++ gives functions other names
        raise Unavailable(f"what the C compiler made cannot be loaded: {error}") from None
    return library


def _there(path: Path) -> ctypes.CDLL | None:
    """The library that an earlier process of this user left, unless it is damaged; another's could do anything."""
    try:
        return _load(path) if path.exists() and path.stat().st_uid == os.getuid() else None
    except (OSError, Unavailable):
        return None


def _opened() -> ctypes.CDLL:
    """The library, from the cache folder or, where that cannot be written to, from a folder that goes at once."""
    if os.environ.get(SWITCH) == "0":
        raise Unavailable(f"{SWITCH}=0 says so")
    if not torch.backends.openmp.is_available() or platform.system() != "Linux":
        raise Unavailable("they are for PyTorch with OpenMP on Linux")
    compiler, cached = _compiler(), user_cache_path("gt")
    path = cached / _name(compiler)
    _clear(cached)
    if (library := _there(path)) is not None:
        return library
    try:
        cached.mkdir(parents=True, exist_ok=True)
        _compile(compiler, path)
        return _load(path)
    except (OSError, Unavailable):  # where its disk is full it is the compiler that fails
        pass
    try:
        with tempfile.TemporaryDirectory() as folder:
            _compile(compiler, Path(folder, path.name))
            return _load(Path(folder, path.name))
    except OSError as error:
        raise Unavailable(f"there is no folder to compile them in: {error}") from None


@cache
def obstacle() -> str | None:
    """Why there are no kernels here, in a phrase, or None; the first time they may be compiled."""
    try:
        kernels()
    except Unavailable as reason:
        log.info("attention and dropout on a CPU go without kernels of their own: %s", reason)
        return str(reason)
    return None


@cache
def kernels() -> ctypes.CDLL:
    """The library.

    Raises:
        Unavailable: there is none here; see `obstacle`.
    """
    return _opened()


def addressable(*tensors: Tensor) -> bool:
    """Whether the kernels, if there are any, may read these where they lie: float32 on a CPU that nobody looks into."""
    plainly = all(type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32 for t in tensors)
    return plainly and all(t.device.type == "cpu" for t in tensors) and not (plain() or torch.jit.is_tracing())


def random_seed() -> int:
    """Of random numbers of a kernel, drawn from PyTorch's generator: what is seeded there is seeded here."""
    return int(torch.empty((), dtype=torch.int64).random_())


def drop_level(p: float) -> tuple[int, float]:
    """Below which of 2^32 an element is dropped with probability p in [0, 1), and what the others are scaled by."""
    return min(round(p * LEVELS), LEVELS - 1), 1 / (1 - p)


def rows_of_heads(t: Tensor) -> Tensor:
    """(N, H, D) whose heads lie side by side, however far apart its rows are: itself where they do."""
    return t if t.stride(2) == 1 and t.stride(1) == t.shape[2] else t.contiguous()


def address(t: Tensor) -> int:
    """Where a tensor lies whose numbers follow one another.

    Raises:
        ValueError: they do not, and a kernel would read others.
    """
    if not t.is_contiguous():
        raise ValueError(
            f"a kernel reads numbers that follow one another, not {tuple(t.shape)} in steps of {t.stride()}"
        )
    return t.data_ptr()


def where_rows_lie(**tensors: Tensor) -> dict[str, int]:
    """The address of each of some `rows_of_heads`, by its name, and the steps between its rows as ``row_NAME``."""
    steps = {f"row_{name}": t.stride(0) for name, t in tensors.items()}
    return {name: t.data_ptr() for name, t in tensors.items()} | steps
