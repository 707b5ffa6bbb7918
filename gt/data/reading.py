"""Files that come from elsewhere: unpacked, and checked before anything is made of them."""

import codecs
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.serialization import get_safe_globals, safe_globals

from gt.errors import UserError

RATIO, ROOM = 200, 2**28  # what a gzipped file may grow to: so many times its size, or so many bytes
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
# what an array of numbers is made of; older files name the module as it was called before numpy 2
ARRAYS: list[Any] = [
    _RECONSTRUCT,
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *(getattr(np.dtypes, f"{name}DType") for name in ("Int64", "Int32", "Float64", "Float32")),
]
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # where JSON may hold half of a character that takes two


# how a text begins that says its encoding; the longer marks first, for one begins like another
MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
ESCAPED = re.compile("[\udc80-\udcff]")  # what stands for a byte that is not UTF-8, see `lines`
DECLARED = re.compile(rb"""\s*<\?xml\s[^>]*\bencoding\s*=\s*["']([A-Za-z][\w.-]*)["']""")  # by XML, in its first line


class _Bounded(io.RawIOBase):
    """A gzipped file that refuses to grow out of all proportion."""

    def __init__(self, path: Path) -> None:
        self.path, self.stream, self.read_so_far = path, gzip.GzipFile(path), 0
        self.most = max(ROOM, RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.stream.readinto(buffer)
        self.read_so_far += count
        if self.read_so_far > self.most:
            raise UserError(
                f"{self.path} grows to more than {RATIO} times its size, which no table or text does: unpack it first"
                " if it is one"
            )
        return count

    def close(self) -> None:
        self.stream.close()
        super().close()


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """The bytes of a file, unpacked where it is gzipped; what goes wrong while they are read is a `UserError`."""
    try:
        if path.suffix.lower() == ".gz":
            packed: Any = _Bounded(path)
            with io.BufferedReader(packed) as stream:
                yield stream
        else:
            with open(path, "rb") as plain:
                yield plain
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: set data.path to an existing one") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: set data.path to one file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is not whole, or not gzipped ({error}): make or copy it again") from None


def encoding_of(start: bytes) -> str:
    """The encoding of a text by its byte order mark, else UTF-8; which of the 8-bit ones it could be is not guessed."""
    return next((name for mark, name in MARKS.items() if start.startswith(mark)), "utf-8")


def ending(path: Path) -> str:
    """What the name says of how a file is read, in small letters: ``.csv`` of ``a.CSV.gz`` too."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def lines(path: Path, lenient: bool = False, longest: int = -1) -> Iterator[str]:
    """The lines of a text file, unpacked where it is gzipped; each ends in a line feed, whatever it ends in there.

    Args:
        path: UTF-8, or what a byte order mark says, which is no part of the first line.
        lenient: a byte that is not UTF-8, or a zero byte after the first line, is left to whoever reads the line: one
            of `ESCAPED` stands for it.
        longest: characters of a line; any number where it is negative.

    Raises:
        UserError: no such file, one that is not whole, a line that is no text or is too long: names it.
    """
    number = 0
    with opened(path) as stream:
        encoding = encoding_of(stream.peek(4)[:4])
        errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        text = io.TextIOWrapper(stream, encoding=encoding, errors=errors)
        try:
            while line := text.readline(longest):
                number += 1
                if len(line) == longest:
                    raise UserError(f"{path}, line {number}: longer than {longest:,} characters; is this a table?")
                if "\0" in line and (number == 1 or not lenient):
                    raise not_text(path, number, 0)
                if not (lenient or line.isascii()) and (byte := ESCAPED.search(line)):
                    raise not_text(path, number, ord(byte[0]) - 0xDC00)
                yield line
        except UnicodeDecodeError as error:
            raise not_text(path, number + 1, error.object[error.start], encoding) from None


def read_text(path: Path) -> str:
    """The text of a file, unpacked where its name ends in ``.gz``, without a byte order mark.

    It is UTF-8 unless a byte order mark, or an XML declaration, says otherwise.

    Raises:
        UserError: it cannot be read, is cut off, or unpacks to suspiciously much; bytes that are no text, named by
            their line; nothing in it.
    """
    with opened(path) as stream:
        content = stream.read()
    encoding = encoding_of(content[:4])
    if encoding == "utf-8" and (declared := DECLARED.match(content)):
        encoding = declared[1].decode()
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise not_text(path, line, content[error.start], encoding) from None
    except LookupError:
        raise UserError(f"{path}, line 1: there is no encoding '{encoding}': save the file as UTF-8") from None
    if "\0" in text:
        raise not_text(path, text.count("\n", 0, text.index("\0")) + 1, 0)
    if not text.strip():
        raise UserError(f"{path} is empty")
    return text


def not_text(path: Path, line: int, byte: int, encoding: str = "utf-8") -> UserError:
    """What to say of a byte that no such text has there; a zero byte is a character of Unicode, but of no text."""
    name = encoding.upper().removesuffix("-SIG")
    what = f"byte 0x{byte:02x} is not {name} text" if byte or "8" not in name else "a zero byte, which no text has"
    how = " (from Windows or Latin-1: iconv -f CP1252 -t UTF-8)" if byte and name == "UTF-8" else ""
    return UserError(f"{path}, line {line}: {what}: save the file as UTF-8{how}")


def parse_json(text: str, path: Path, line: int) -> Any:
    """The value that a text says, which begins on a line of a file.

    Raises:
        UserError: naming the file and the line: it is not JSON, or holds what no program can use.
    """
    try:
        value = json.loads(text.rstrip())
        if HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {line + error.lineno - 1}: {error.msg}: not JSON") from None
    except RecursionError:
        raise UserError(f"{path}, line {line}: nested too deeply to be read") from None
    except UnicodeEncodeError as error:
        half = f"{error.object[error.start]!a}"
        raise UserError(f"{path}, line {line}: {half} is half of a character: write it whole") from None
    except ValueError:  # of whole numbers, Python reads 4,300 digits
        raise UserError(f"{path}, line {line}: a number of too many digits") from None
    return value


def load_tensors(path: Path, advice: str, parts: Sequence[type] = ()) -> Any:
    """What ``torch.save`` made of tensors, arrays of numbers and plain containers; nothing that a file holds is run.

    Args:
        path: the file.
        advice: what to do where it cannot be read.
        parts: classes that it may hold beside these: those that do nothing when they are filled with what a file says.

    Raises:
        UserError: the file cannot be read, or holds anything else.
    """
    added = [
        entry for entry in (*ARRAYS, *parts) if entry not in get_safe_globals()
    ]  # what is there already is to stay
    try:
        with safe_globals(added):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the bytes lead it to; what it advises is to trust the file
        reason = "something else than tensors" if "weights_only" in str(error) else "nothing that can be read"
        named = re.search(r"GLOBAL ([\w.]+) was not an allowed global", str(error))
        what = f" ({named[1]})" if named else ""
        raise UserError(f"{path} holds {reason}{what}: {advice}") from None
