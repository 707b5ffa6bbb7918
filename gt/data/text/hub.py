"""Language modelling on datasets of the Hugging Face hub, loaded by the package ``datasets``."""

from collections.abc import Iterator, Sequence
from functools import partial
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any

from gt.data.splits import split_of
from gt.data.text.corpus import Corpus, Kind
from gt.data.text.files import digest, join_lines
from gt.data.text.tokens import Texts
from gt.errors import UserError, first_line, nearest


def _rows(parts: Sequence[Any], column: str, name: str) -> Iterator[str]:
    """The concatenated text of datasets, row by row, with a newline added to rows that lack one."""
    for row in chain.from_iterable(part.select_columns([column]) for part in parts):
        text = "" if row[column] is None else row[column]
        if not isinstance(text, str):
            raise UserError(
                f"{name}: '{column}' holds {text!r:.40}, which is not text: set data.column to another column"
            )
        yield text if text.endswith("\n") else text + "\n"


def _pieces(parts: Sequence[Any], column: str, name: str) -> Iterator[str]:
    return join_lines(_rows(parts, column, name))


class HuggingFaceText(Corpus):
    """The text of a dataset of the Hugging Face hub, such as ``wikitext``.

    Its tokens are cached, so that no network is needed later. Those of a local folder are rebuilt if its files change.

    Args:
        dataset: its name, or a folder that ``datasets`` can read.
        config: the configuration; None if it has only one.
        column: the column that holds the text.
        revision: the version; None takes the newest when it is first read.
        The rest as in `Corpus`.
    """

    hint = "set data.column to a column with text"

    def __init__(
        self,
        dataset: str,
        config: str | None = None,
        column: str = "text",
        revision: str | None = None,
        valid: float = 0.1,
        tokens: Kind = "bpe",
        vocabulary: int = 8192,
        tokenizer: str | None = None,
        root: str = "data",
    ) -> None:
        super().__init__(valid, tokens, vocabulary, tokenizer, root)
        self.repository, self.config, self.column, self.revision = dataset, config, column, revision

    def __str__(self) -> str:
        return self.repository if self.config is None else f"{self.repository} ({self.config})"

    def facts(self) -> dict[str, Any]:
        facts = {"dataset": self.repository, "config": self.config, "column": self.column, "revision": self.revision}
        folder = Path(self.repository)
        if not folder.is_dir():
            return facts
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return facts | {"files": digest({path.relative_to(folder).as_posix(): [path] for path in paths})}

    def texts(self) -> Texts:
        try:
            datasets = import_module("datasets")
        except ImportError:
            raise UserError(
                "data from the Hugging Face hub needs the package datasets: pip install datasets, "
                "or download text files and train with data=text data.path=FOLDER"
            ) from None
        try:
            dataset = datasets.load_dataset(self.repository, self.config, revision=self.revision)
        except Exception as error:  # whatever the library or the network raises
            cause = first_line(error)
            raise UserError(
                f"cannot load {self} from the Hugging Face hub ({cause}): without a network download its text "
                "files elsewhere and train with data=text data.path=FOLDER"
            ) from None
        splits: dict[str, list[Any]] = {}
        for name, rows in dataset.items():
            if split := split_of(name):
                splits.setdefault(split, []).append(rows)
        if "train" not in splits:
            raise UserError(f"{self} has no training split, only {', '.join(dataset)}")
        columns = splits["train"][0].column_names
        if self.column not in columns:
            raise UserError(f"{self} has no column '{self.column}' (data.column): {nearest(self.column, columns)}")
        return {split: partial(_pieces, parts, self.column, str(self)) for split, parts in splits.items()}
