"""Language modelling on a dataset of the Hugging Face hub, by name, through the package ``datasets``."""

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import Any

from gt.data.text.files import SPLITS, joined
from gt.data.text.language import Kind, LanguageModelling
from gt.data.text.tokens import Texts
from gt.errors import UserError, nearest


def _rows(dataset: Any, column: str) -> Iterator[str]:
    """The text of a dataset, row by row; a row that does not end its line gets a line end."""
    for row in dataset.select_columns([column]):
        text = row[column] or ""
        yield text if text.endswith("\n") else text + "\n"


def _pieces(dataset: Any, column: str) -> Iterator[str]:
    return joined(_rows(dataset, column))


class HuggingFaceText(LanguageModelling):
    """The text of a dataset of the Hugging Face hub, such as ``wikitext``.

    Its tokens are kept: once they are there no network is needed.

    Args:
        dataset: its name, or a folder that ``datasets`` can read.
        config: which of its configurations; None where it has one only.
        column: the column that holds the text.
        revision: a version of it; None takes the newest there is when it is first read.
        The rest as in `LanguageModelling`.
    """

    def __init__(
        self,
        dataset: str,
        config: str | None = None,
        column: str = "text",
        revision: str | None = None,
        context: int = 128,
        valid: float = 0.1,
        tokens: Kind = "bpe",
        vocabulary: int = 8192,
        tokenizer: str | None = None,
        root: str = "data",
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            context, valid, tokens, vocabulary, tokenizer, root, batch_size, eval_batch_size, workers, seed
        )
        self.repository, self.config, self.column, self.revision = dataset, config, column, revision

    @property
    def where(self) -> str:
        return self.repository if self.config is None else f"{self.repository} ({self.config})"

    def source(self) -> dict[str, Any]:
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
            why = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"cannot load {self.where} from the Hugging Face hub ({why}): without a network download its text "
                "files elsewhere and train with data=text data.path=FOLDER"
            ) from None
        if "train" not in dataset:
            raise UserError(f"{self.where} has no split for training: there are {', '.join(dataset)}")
        columns = dataset["train"].column_names
        if self.column not in columns:
            raise UserError(
                f"{self.where} has no column '{self.column}' (data.column): {nearest(self.column, columns)}"
            )
        known = {SPLITS[name]: split for name, split in dataset.items() if name in SPLITS}
        return {name: partial(_pieces, split, self.column) for name, split in known.items()}
