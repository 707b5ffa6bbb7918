"""The text of a file that comes from elsewhere, checked before anything is made of it."""

from pathlib import Path

from gt.data.molecules.tables import opened
from gt.errors import UserError


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, unpacked where its name ends in ``.gz``, without a byte order mark.

    Raises:
        UserError: it cannot be read, is cut off, or unpacks to suspiciously much; bytes that are not UTF-8, named by
            their line; nothing in it.
    """
    with opened(path) as stream:
        content = stream.read()
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
