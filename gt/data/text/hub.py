"""Language modelling on a dataset of the Hugging Face hub, by name, through the package ``datasets``."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

from gt.data.splits import split_of
from gt.data.text.corpus import Corpus, Kind
from gt.data.text.files import joined
from gt.data.text.tokens import Texts
from gt.errors import UserError, first_line, nearest


def _rows(dataset: Any, column: str) -> Iterator[str]:
    """The text of a dataset, row by row; a row that does not end its line gets a line end."""
    for row in dataset.select_columns([column]):
        text = row[column] or ""
        yield text if text.endswith("\n") else text + "\n"


def _pieces(dataset: Any, column: str) -> Iterator[str]:
    return joined(_rows(dataset, column))


class HuggingFaceText(Corpus):
    """The text of a dataset of the Hugging Face hub, such as ``wikitext``.

    Its tokens are kept: once they are there no network is needed.

    Args:
        dataset: its name, or a folder that ``datasets`` can read.
        config: which of its configurations; None where it has one only.
        column: the column that holds the text.
        revision: a version of it; None takes the newest there is when it is first read.
        The rest as in `Corpus`.
    """

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
        return {"dataset": self.repository, "config": self.config, "column": self.column, "revision": self.revision}

    def texts(self) -> Texts:
        try:
            datasets = import_module("datasets")
        except ImportError:
            raise UserError(
                "data from the Hugging Face hub need the package datasets: pip install datasets, "
                "or download text files and train with data=text data.path=FOLDER"
            ) from None
        try:
            dataset = datasets.load_dataset(self.repository, self.config, revision=self.revision)
        except Exception as error:  # whatever the library or the network raises
            why = first_line(error)
            raise UserError(
                f"cannot load {self} from the Hugging Face hub ({why}): without a network download its text "
                "files elsewhere and train with data=text data.path=FOLDER"
            ) from None
        if "train" not in dataset:
            raise UserError(f"{self} has no split for training: there are {', '.join(dataset)}")
        columns = dataset["train"].column_names
        if self.column not in columns:
            raise UserError(f"{self} has no column '{self.column}' (data.column): {nearest(self.column, columns)}")
        return {
            split: partial(_pieces, rows, self.column) for name, rows in dataset.items() if (split := split_of(name))
        }
