"""The C kernels: compiled once, cached, recompiled if damaged, with a reason wherever they are unavailable."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gt.native import library
from gt.native.library import Unavailable, addressable, drop_level, obstacle, random_seed

needs_kernels = pytest.mark.skipif(obstacle() is not None, reason=f"no C kernels: {obstacle()}")
PRINT_OBSTACLE = "from gt.native.library import obstacle; print(obstacle())"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.delenv(library.SWITCH, raising=False)
    monkeypatch.setattr(library, "user_cache_path", lambda name: tmp_path / name)
    return tmp_path / "gt"


def cached_files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


@needs_kernels
def test_compiled_library_is_cached(cache, monkeypatch):
    library._open()
    (path,) = cached_files(cache)
    assert path.suffix == ".so"
    monkeypatch.setattr(library, "_compile", None)
    library._open()


@needs_kernels
def test_cache_key_includes_processor_sources_and_compiler(tmp_path, monkeypatch):
    names = [library._file_name(["gcc"]), library._file_name(["cc"])]
    with monkeypatch.context() as patch:
        patch.setattr(library, "_processor", lambda: "another")
        names.append(library._file_name(["gcc"]))
    (tmp_path / "all.c").write_text("int x;")
    monkeypatch.setattr(library, "SOURCES", tmp_path)
    names.append(library._file_name(["gcc"]))
    assert len(set(names)) == len(names)


@needs_kernels
@pytest.mark.parametrize("content", [b"", b"no library"])
def test_damaged_cache_file_is_recompiled(cache, content):
    cache.mkdir()
    path = cache / library._file_name(library._compiler())
    path.write_bytes(content)
    library._open()
    assert path.stat().st_size > 10_000
    assert cached_files(cache) == [path]


@needs_kernels
def test_stale_build_folders_are_removed(cache):
    old, young = cache / ".native-old", cache / ".native-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
        (folder / "all.o").write_bytes(b"incomplete")
    hour_ago = time.time() - 3600
    os.utime(old, (hour_ago, hour_ago))
    library._open()
    assert not old.exists()
    assert young.exists()  # may belong to a running process
    os.utime(young, (hour_ago, hour_ago))
    library._open()  # even if nothing has to be compiled
    assert [path.suffix for path in cached_files(cache)] == [".so"]


@needs_kernels
def test_cache_file_of_another_user_is_recompiled(cache, monkeypatch):
    library._open()
    (path,) = cached_files(cache)
    inode = path.stat().st_ino
    monkeypatch.setattr(library.os, "getuid", lambda: path.stat().st_uid + 1)
    library._open()
    assert cached_files(cache) == [path]
    assert path.stat().st_ino != inode


@needs_kernels
def test_kernels_load_without_a_writable_cache(tmp_path, monkeypatch):
    (tmp_path / "gt").write_text("a file in its place")
    monkeypatch.setattr(library, "user_cache_path", lambda name: tmp_path / name / "below")
    assert library._open().dropout


@needs_kernels
def test_kernels_load_with_a_full_cache_disk(cache, tmp_path, monkeypatch):
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\ncase "$*" in *{cache}*) echo No space left; exit 1; esac\nexec gcc "$@"\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert library._open().dropout
    assert cached_files(cache) == []


@needs_kernels
def test_concurrent_processes_create_one_cache_file(tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    programs = [
        subprocess.Popen([sys.executable, "-c", PRINT_OBSTACLE], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [program.communicate()[0].strip() for program in programs] == ["None", "None"]
    assert len(cached_files(tmp_path / "gt")) == 1


@needs_kernels
def test_lack_of_a_writable_folder_is_reported(tmp_path, monkeypatch):
    (tmp_path / "gt").write_text("a file in its place")
    monkeypatch.setattr(library, "user_cache_path", lambda name: tmp_path / name / "below")
    monkeypatch.setattr(library.tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(Unavailable, match=r"no folder to compile them in: .*nowhere"):
        library._open()


@needs_kernels
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++")
def test_cpp_compiler_is_reported(cache, monkeypatch):
    monkeypatch.setenv("CC", "g++")
    for _ in range(2):  # the second time with its library in the cache
        with pytest.raises(Unavailable, match=r"cannot be loaded.*undefined symbol"):
            library._open()


def test_unbalanced_quote_in_cc_is_reported(cache, monkeypatch):
    monkeypatch.setenv("CC", "gcc '")
    with pytest.raises(Unavailable, match=r"CC is not a valid command: No closing quotation"):
        library._open()


def test_missing_compiler_is_reported_with_a_remedy(cache, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match="there is no C compiler: install gcc or set CC"):
        library._open()
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(Unavailable, match=r"cannot be run.*no-such-compiler"):
        library._open()


@needs_kernels
def test_compiler_error_is_quoted_and_nothing_cached(cache, tmp_path, monkeypatch):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "all.c").write_text("int x = ;")
    monkeypatch.setattr(library, "SOURCES", sources)
    with pytest.raises(Unavailable, match=r"the C compiler failed: .*all.c:1.*error"):
        library._open()
    assert cached_files(cache) == []


@needs_kernels
def test_library_with_undefined_symbol_is_rejected(cache, tmp_path, monkeypatch):
    sources = tmp_path / "sources"
    sources.mkdir()
    (sources / "all.c").write_text("void nobody_has_this(void); void dropout(void) { nobody_has_this(); }")
    monkeypatch.setattr(library, "SOURCES", sources)
    with pytest.raises(Unavailable, match=r"cannot be loaded.*nobody_has_this"):
        library._open()


def test_environment_variable_disables_kernels():
    result = subprocess.run(
        [sys.executable, "-c", PRINT_OBSTACLE],
        env={**os.environ, "GT_NATIVE": "0"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "they are disabled by GT_NATIVE=0"


def test_addressable_requires_plain_dense_memory():
    x = torch.zeros(3)
    assert addressable(x, torch.nn.Parameter(x))
    assert not addressable(x, x.double())
    assert not addressable(x.to("meta"))

    class Subclass(torch.Tensor):
        pass

    assert not addressable(x.as_subclass(Subclass))
    in_transform = []
    torch.func.grad(lambda y: in_transform.append(addressable(y)) or y.sum())(x)
    assert in_transform == [False]


def test_seeds_follow_the_generator_of_pytorch():
    torch.manual_seed(0)
    seeds = [random_seed() for _ in range(3)]
    torch.manual_seed(0)
    assert [random_seed() for _ in range(3)] == seeds
    assert len(set(seeds)) == 3
    assert drop_level(0.0) == (0, 1.0)
    assert drop_level(0.25) == (2**30, 4 / 3)
    assert drop_level(1 - 2**-40)[0] == 2**32 - 1
