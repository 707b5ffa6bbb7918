"""Text files as they come from elsewhere: UTF-8, perhaps gzipped, checked before anything is made of them."""

import gzip
import zlib
from pathlib import Path

from gt.errors import UserError

HARMLESS = 64 * 2**20  # bytes that a file may always unpack to
RATIO = 200  # times its size that a larger one may unpack to; real tables stay below 50


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked where its name ends in ``.gz``.

    Raises:
        UserError: it cannot be read, is cut off, or unpacks to suspiciously much.
    """
    try:
        if path.suffix != ".gz":
            return path.read_bytes()
        limit = max(HARMLESS, RATIO * path.stat().st_size)
        with gzip.open(path) as handle:
            content = handle.read(limit + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is not a whole gzip file ({error}): pack it again") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    if len(content) > limit:
        raise UserError(
            f"{path} would unpack to more than {limit / 2**20:,.0f} MiB, {RATIO} times its size or more: "
            "unpack it yourself if you trust it"
        )
    return content


def read_text(path: Path) -> str:
    """The text of a file, without a byte order mark.

    Raises:
        UserError: as `read_bytes`; bytes that are not UTF-8, named by their line; nothing in it.
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8 text: save the file as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{path}, line {line}: a zero byte, which no text has: save the file as UTF-8")
    if not text.strip():
        raise UserError(f"{path} is empty")
    return text
