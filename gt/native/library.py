"""The kernels of ``gt/native/kernels``, compiled for the local processor on first use, which takes a second or two.

The compiled library is stored in the user's cache folder. Without a compiler, or with ``GT_NATIVE=0``, PyTorch's own
functions replace the kernels: with the same results, except for rounding and the random numbers of dropout.
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
# linked without -fopenmp: the threads must be those of the OpenMP library that PyTorch has loaded
COMPILE = ["-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-ffp-contract=fast", "-fPIC", "-Wno-psabi", "-c"]
LINK = ["-shared"]
COMPILE_TIMEOUT = 120  # seconds for each of the two runs of the compiler
WORK_PREFIX = ".native-"  # of folders that it compiles in
STALE_AFTER = 600  # seconds after which such a folder is taken for one left by a process that was killed
SWITCH = "GT_NATIVE"
LEVELS = 2**32  # values of a random number


OPERATIONS: Counter[str] = Counter()  # multiplications and additions so far, which PyTorch's FLOP counter misses


class Unavailable(Exception):
    """Why the kernels are not available, as a phrase."""


def _compiler() -> list[str]:
    """The command of the C compiler: ``CC``, or one that is installed."""
    try:
        command = shlex.split(os.environ.get("CC", ""))
    except ValueError as error:
        raise Unavailable(f"CC is not a valid command: {error}") from None
    if command:
        return command
    for name in COMPILERS:
        if path := shutil.which(name):
            return [path]
    raise Unavailable("there is no C compiler: install gcc or set CC")


def _processor() -> str:
    """The features of the processor: code for another machine that shares the cache folder may not run on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    return " ".join(re.findall(r"^(?:model name|flags|Features)\s*:.*$", lines, re.MULTILINE)[:2])


def _file_name(compiler: list[str]) -> str:
    """The file name of the library, unique to its sources, compiler and processor."""
    parts = [*compiler, *COMPILE, *LINK, platform.platform(), _processor(), torch.__version__]
    content = b"\0".join([*map(str.encode, parts), *(path.read_bytes() for path in sorted(SOURCES.iterdir()))])
    return f"native-{hashlib.sha256(content).hexdigest()[:20]}.so"


def _run(command: list[str]) -> None:
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"the C compiler cannot be run: {error}") from None
    if result.returncode:
        lines = (result.stderr.strip() or f"{command[0]} exited with code {result.returncode}").splitlines()
        raise Unavailable(f"the C compiler failed: {next((line for line in lines if 'error' in line), lines[0])}")


def _compile(compiler: list[str], path: Path) -> None:
    """Compile the library and write it atomically; several processes may do so concurrently."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=WORK_PREFIX) as folder:
        objects, library = Path(folder, "all.o"), Path(folder, "all.so")
        _run([*compiler, *COMPILE, str(SOURCES / "all.c"), "-o", str(objects)])
        _run([*compiler, *LINK, str(objects), "-o", str(library), "-lm"])
        os.replace(library, path)


def _remove_stale(cached: Path) -> None:
    """Remove folders left by processes that were killed while compiling."""
    with suppress(OSError):  # another process may be removing them too
        for folder in cached.glob(f"{WORK_PREFIX}*"):
            if time.time() - folder.stat().st_mtime > STALE_AFTER:
                shutil.rmtree(folder, ignore_errors=True)


def _load(path: Path) -> ctypes.CDLL:
    """Load the library; PyTorch's OpenMP library resolves its missing symbols."""
    c_float, c_int64 = ctypes.c_float, ctypes.c_int64
    address, c_uint32 = ctypes.c_void_p, ctypes.c_uint32
    try:
        library = ctypes.CDLL(str(path), mode=os.RTLD_NOW)
        library.attention_scratch.restype = ctypes.c_int64
        library.dropout.argtypes = [address, address, c_int64, ctypes.c_uint64, c_uint32, c_float, c_int64]
        library.linear_rows.argtypes = [*[address] * 4, *[c_int64] * 4, address, c_int64]
        library.linear_outer.argtypes = [*[address] * 3, *[c_int64] * 4]
    except (OSError, AttributeError) as error:  # a C++ compiler mangles the names of functions
        raise Unavailable(f"the compiled library cannot be loaded: {error}") from None
    return library


def _load_cached(path: Path) -> ctypes.CDLL | None:
    """The library that an earlier process compiled, unless it is damaged or, for safety, belongs to another user."""
    try:
        return _load(path) if path.exists() and path.stat().st_uid == os.getuid() else None
    except (OSError, Unavailable):
        return None


def _open() -> ctypes.CDLL:
    """Open the library from the cache folder or, if that is not writable, from a temporary folder."""
    if os.environ.get(SWITCH) == "0":
        raise Unavailable(f"they are disabled by {SWITCH}=0")
    if not torch.backends.openmp.is_available() or platform.system() != "Linux":
        raise Unavailable("they need PyTorch with OpenMP on Linux")
    compiler, cached = _compiler(), user_cache_path("gt")
    path = cached / _file_name(compiler)
    _remove_stale(cached)
    if (library := _load_cached(path)) is not None:
        return library
    try:
        cached.mkdir(parents=True, exist_ok=True)
        _compile(compiler, path)
        return _load(path)
    except (OSError, Unavailable):  # the compiler fails if the disk is full
        pass
    try:
        with tempfile.TemporaryDirectory() as folder:
            _compile(compiler, Path(folder, path.name))
            return _load(Path(folder, path.name))
    except OSError as error:
        raise Unavailable(f"there is no folder to compile them in: {error}") from None


@cache
def obstacle() -> str | None:
    """Why the kernels are not available, as a phrase, or None; the first call may compile them."""
    try:
        kernels()
    except Unavailable as reason:
        log.info("attention and dropout on a CPU run without C kernels: %s", reason)
        return str(reason)
    return None


@cache
def kernels() -> ctypes.CDLL:
    """The library.

    Raises:
        Unavailable: there are no kernels, see `obstacle`.
    """
    return _open()


def addressable(*tensors: Tensor) -> bool:
    """Whether kernels may access these tensors in memory: float32 on a CPU, neither traced nor transformed."""
    ordinary = all(type(t) in (Tensor, nn.Parameter) and t.dtype == torch.float32 for t in tensors)
    return ordinary and all(t.device.type == "cpu" for t in tensors) and not (plain() or torch.jit.is_tracing())


def random_seed() -> int:
    """A seed for a kernel's random numbers, drawn from PyTorch's generator and thus reproducible with it."""
    return int(torch.empty((), dtype=torch.int64).random_())


def drop_level(p: float) -> tuple[int, float]:
    """The threshold among 2^32 values that drops with probability p in [0, 1), and the scale of what is kept."""
    return min(round(p * LEVELS), LEVELS - 1), 1 / (1 - p)


def rows_of_heads(t: Tensor) -> Tensor:
    """(N, H, D) with contiguous heads within each row, whatever the row stride; copied only if necessary."""
    return t if t.stride(2) == 1 and t.stride(1) == t.shape[2] else t.contiguous()


def address(t: Tensor) -> int:
    """The address of a contiguous tensor.

    Raises:
        ValueError: it is not contiguous, and a kernel would access wrong elements.
    """
    if not t.is_contiguous():
        raise ValueError(f"a kernel needs a contiguous tensor, not {tuple(t.shape)} with the strides {t.stride()}")
    return t.data_ptr()


def row_pointers(**tensors: Tensor) -> dict[str, int]:
    """The address of each tensor, see `rows_of_heads`, under its name, and its row stride under ``row_NAME``."""
    strides = {f"row_{name}": t.stride(0) for name, t in tensors.items()}
    return {name: t.data_ptr() for name, t in tensors.items()} | strides
