"""Reads untrusted files: decompression, decoding, JSON and tensors, with checks and one-line errors."""

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

RATIO, MIN_LIMIT = 200, 2**28  # a gzipped file may grow to RATIO times its size, or to MIN_LIMIT bytes if that is more
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]
# the classes in a pickled array of numbers; older files use the module name from before numpy 2
ARRAY_CLASSES: list[Any] = [
    _RECONSTRUCT,
    (_RECONSTRUCT, "numpy.core.multiarray._reconstruct"),
    (_RECONSTRUCT, "numpy._core.multiarray._reconstruct"),
    np.ndarray,
    np.dtype,
    *(getattr(np.dtypes, f"{name}DType") for name in ("Int64", "Int32", "Float64", "Float32")),
]
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # an escaped surrogate in JSON, which may be unpaired


# byte order marks; longer ones first, as one is a prefix of another
BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
ESCAPED = re.compile("[\udc80-\udcff]")  # a surrogate that stands for a byte that is not UTF-8, see `lines`
XML_ENCODING = re.compile(rb"""\s*<\?xml\s[^>]*\bencoding\s*=\s*["']([A-Za-z][\w.-]*)["']""")


class _Bounded(io.RawIOBase):
    """A gzipped file with a limit on its decompressed size."""

    def __init__(self, path: Path) -> None:
        self.path, self.stream, self.bytes_read = path, gzip.GzipFile(path), 0
        self.limit = max(MIN_LIMIT, RATIO * path.stat().st_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.stream.readinto(buffer)
        self.bytes_read += count
        if self.bytes_read > self.limit:
            raise UserError(
                f"{self.path} grows to more than {RATIO} times its size, which is unusual for a table or text: if it "
                "is one, unpack it first"
            )
        return count

    def close(self) -> None:
        self.stream.close()
        super().close()


@contextmanager
def open_bytes(path: Path) -> Iterator[io.BufferedReader]:
    """Open a file as bytes, decompressed if gzipped; failures while reading become a `UserError`."""
    try:
        if path.suffix.lower() == ".gz":
            decompressed: Any = _Bounded(path)
            with io.BufferedReader(decompressed) as stream:
                yield stream
        else:
            with open(path, "rb") as plain:
                yield plain
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: set data.path to an existing one") from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder: set data.path to one file") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is incomplete, or not gzipped ({error}): make or copy it again") from None


def encoding_of(start: bytes) -> str:
    """The encoding of a text by its byte order mark, else UTF-8; 8-bit encodings are not guessed."""
    return next((name for mark, name in BYTE_ORDER_MARKS.items() if start.startswith(mark)), "utf-8")


def ending(path: Path) -> str:
    """The lower-case suffix of a file name without ``.gz``: ``.csv`` for ``a.CSV.gz``."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def lines(path: Path, lenient: bool = False, longest: int = -1) -> Iterator[str]:
    """The lines of a text file, decompressed if gzipped, with line endings normalised to line feeds.

    Args:
        path: a file in UTF-8, or in the encoding of its byte order mark, which is removed.
        lenient: leave bytes that are not UTF-8, as a character of `ESCAPED` each, and zero bytes after the first line
            to the caller.
        longest: maximum number of characters of a line; unlimited if negative.

    Raises:
        UserError: the file is missing or incomplete, or a line is not text or too long; gives the line.
    """
    number = 0
    with open_bytes(path) as stream:
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
    """The text of a file, decompressed if its name ends in ``.gz``, without a byte order mark.

    It is read as UTF-8 unless a byte order mark, or an XML declaration, says otherwise.

    Raises:
        UserError: the file cannot be read, is truncated or empty, decompresses to a suspicious size, or has bytes that
            are not text; gives their line.
    """
    with open_bytes(path) as stream:
        content = stream.read()
    encoding = encoding_of(content[:4])
    if encoding == "utf-8" and (declared := XML_ENCODING.match(content)):
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
    """The error for an invalid byte; a zero byte is valid Unicode, but is not expected in text."""
    name = encoding.upper().removesuffix("-SIG")
    problem = f"byte 0x{byte:02x} is not {name} text" if byte or "8" not in name else "a zero byte, which no text has"
    hint = " (from Windows or Latin-1: iconv -f CP1252 -t UTF-8)" if byte and name == "UTF-8" else ""
    return UserError(f"{path}, line {line}: {problem}: save the file as UTF-8{hint}")


def parse_json(text: str, path: Path, line: int) -> Any:
    """Parse JSON text that begins at the given line of a file.

    Raises:
        UserError: gives file and line: the text is not JSON, or holds values that cannot be processed.
    """
    try:
        value = json.loads(text.rstrip())
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {line + error.lineno - 1}: {error.msg}: not JSON") from None
    except RecursionError:
        raise UserError(f"{path}, line {line}: nested too deeply to be read") from None
    except UnicodeEncodeError as error:
        half = f"{error.object[error.start]!a}"
        raise UserError(f"{path}, line {line}: {half} is half of a surrogate pair: write both halves") from None
    except ValueError:  # Python reads integers of at most 4,300 digits
        raise UserError(f"{path}, line {line}: a number of too many digits") from None
    return value


def load_tensors(path: Path, advice: str, classes: Sequence[type] = ()) -> Any:
    """Load a file of ``torch.save`` with tensors, arrays of numbers and plain containers, without executing anything.

    Args:
        path: the file.
        advice: what to do if it cannot be read.
        classes: further classes that it may hold; they must be safe to instantiate with arbitrary content.

    Raises:
        UserError: the file cannot be read, or holds anything else.
    """
    added = [
        entry for entry in (*ARRAY_CLASSES, *classes) if entry not in get_safe_globals()
    ]  # existing entries must stay registered afterwards
    try:
        with safe_globals(added):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch may raise anything; its own message advises trusting the file
        reason = "something other than tensors" if "weights_only" in str(error) else "nothing that can be read"
        match = re.search(r"GLOBAL ([\w.]+) was not an allowed global", str(error))
        detail = f" ({match[1]})" if match else ""
        raise UserError(f"{path} holds {reason}{detail}: {advice}") from None
