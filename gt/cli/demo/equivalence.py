"""GPT-2 and BERT computed in three ways: by Hugging Face, by dense matrices and by messages between node pairs."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table
from torch import Tensor

from gt.data.picture import write_picture
from gt.errors import UserError, first_line
from gt.graph import GraphBatch, path_graphs
from gt.huggingface import from_bert, from_gpt2
from gt.layers import attention_layers
from gt.masks import Causal, Complete

WAYS = {"dense": "dense matrices", "sparse": "messages along pairs"}  # by backend
LENGTHS = (96, 33, 1)  # tokens of the documents
TEXT = "A transformer is a graph neural network on the complete graph of the tokens of a text."
REPEATS = 5
TOLERANCE = 1e-4  # relative to the standard deviation of the logits


@dataclass(frozen=True)
class Way:
    """One way to compute the same logits.

    Attributes:
        name: name in tables.
        logits: (N, tokens) for every token of every document.
        seconds: median time of a forward pass.
    """

    name: str
    logits: Tensor
    seconds: float

    def difference(self, other: "Way") -> float:
        """The largest difference between two logits."""
        return float((self.logits - other.logits).abs().max())


def transformers() -> Any:
    """Import the package ``transformers``.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module("transformers")
    except ImportError:
        raise UserError("this needs the package transformers: pip install transformers") from None


def random_models() -> list[Any]:
    """GPT-2 and BERT with four layers and random weights (BERT-Mini, Turc et al. 2019)."""
    library = transformers()
    torch.manual_seed(0)
    gpt2 = library.GPT2Config(n_layer=4, n_embd=256, n_head=4)
    bert = library.BertConfig(hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024)
    return [library.GPT2LMHeadModel(gpt2).eval(), library.BertForMaskedLM(bert).eval()]


def pretrained(name: str) -> tuple[Any, Any]:
    """Load a model and its tokenizer from a folder, the cache or the Hugging Face hub.

    Raises:
        UserError: there is no such model, or it is neither a GPT-2 nor a BERT.
    """
    library = transformers()
    try:
        kind = library.AutoConfig.from_pretrained(name).model_type
        if kind not in ("gpt2", "bert"):
            raise UserError(f"{name} is a {kind}: only GPT-2 and BERT are supported")
        model = library.GPT2LMHeadModel if kind == "gpt2" else library.BertForMaskedLM
        return model.from_pretrained(name).eval(), library.AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise UserError(f"cannot load the model {name} ({reason}): give a folder with a model, or no name") from None


def documents(model: Any, tokenizer: Any = None) -> list[Tensor]:
    """Token ids (L,) of a few documents: a text and prefixes of it, or random ids without a tokenizer for it."""
    if tokenizer is not None and (numbers := tokenizer(TEXT)["input_ids"]):
        return [torch.tensor(numbers[:length]) for length in (len(numbers), len(numbers) // 2, 1)]
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(model.config.vocab_size, (length,), generator=generator) for length in LENGTHS]


def _timed(name: str, run: Callable[[], Tensor]) -> Way:
    seconds = []
    for _ in range(REPEATS + 1):  # the first is a warm-up
        start = time.perf_counter()
        logits = run()
        seconds.append(time.perf_counter() - start)
    return Way(name, logits, statistics.median(seconds[1:]))


@torch.no_grad()
def compare(model: Any, tokens: Sequence[Tensor]) -> tuple[list[Way], GraphBatch]:
    """The logits by Hugging Face, then by each of `WAYS`, and the batch of path graphs that these read."""
    bert = model.config.model_type == "bert"
    net = (from_bert if bert else from_gpt2)(model)
    batch = path_graphs([len(document) for document in tokens])
    numbers = torch.cat(list(tokens))
    batch.x = torch.stack([numbers, torch.zeros_like(numbers)] if bert else [numbers], dim=1)
    ways = [
        _timed("Hugging Face", lambda: torch.cat([model(input_ids=document[None]).logits[0] for document in tokens]))
    ]
    for backend, name in WAYS.items():
        for _, layer in attention_layers(net):
            layer.backend = backend
        ways.append(_timed(name, lambda: net(batch)))
    return ways, batch


def table(title: str, ways: Sequence[Way]) -> Table:
    """A few logits of the first token, the largest differences between any two ways, and times."""
    out = Table("", "logits of a token", title=title)
    for heading in (*(f"largest difference\nfrom {way.name}" for way in ways[:-1]), "ms"):
        out.add_column(heading, justify="right")
    for row, way in enumerate(ways):
        cells = [f"{way.difference(other):.1e}" if column < row else "" for column, other in enumerate(ways[:-1])]
        out.add_row(way.name, " ".join(f"{v:9.5f}" for v in way.logits[0, -4:]), *cells, f"{1e3 * way.seconds:.1f}")
    return out


def verdict(ways: Sequence[Way]) -> str:
    """Whether the logits agree up to float32 rounding."""
    first, *others = ways
    largest, deviation = max(way.difference(first) for way in others), float(first.logits.std())
    result = "equal" if largest < TOLERANCE * max(deviation, 1.0) else "NOT equal"
    return (
        f"{result} up to rounding: the largest difference is {largest:.1e}, the deviation of the logits {deviation:.2f}"
    )


def draw(results: Sequence[tuple[str, Sequence[Way]]], path: Path) -> None:
    """Plot the logits of each way against those of Hugging Face, and times; a row for each model."""
    figure = Figure(figsize=(9, 3.6 * len(results)), layout="constrained")
    figure.suptitle("the same logits, by dense matrices and by messages between node pairs", fontsize=11)
    for (title, ways), (left, right) in zip(results, figure.subplots(len(results), 2, squeeze=False), strict=True):
        logits = [way.logits.flatten() for way in ways]
        sample = torch.linspace(0, len(logits[0]) - 1, 300).long()
        for way, values, mark in zip(ways[1:], logits[1:], ("o", "x"), strict=True):
            left.plot(logits[0][sample], values[sample], mark, ms=4, mfc="none", label=way.name)
        left.axline((0, 0), slope=1, color="grey", lw=0.8)
        largest = max(way.difference(ways[0]) for way in ways[1:])
        left.set(xlabel="logit, Hugging Face", ylabel="logit, here")
        left.set_title(f"{title}\nlargest difference {largest:.1e}", fontsize=9)
        left.legend(fontsize=8)
        bars = right.barh([way.name for way in ways], [1e3 * way.seconds for way in ways], color="#4477aa")
        right.bar_label(bars, fmt="%.0f ms", padding=3, fontsize=8)
        right.invert_yaxis()
        right.set_xlim(right=1.25e3 * max(way.seconds for way in ways))
        right.set_title("time of a pass", fontsize=9)
        right.set_xlabel("ms", fontsize=8)
    write_picture(path, figure)


def demonstrate(name: str | None, folder: Path, console: Console) -> None:
    """Compare a pretrained model, or two random models without a name, and print the path of the picture."""
    models = [pretrained(name)] if name else [(model, None) for model in random_models()]
    results = []
    for model, tokenizer in models:
        ways, batch = compare(model, documents(model, tokenizer))
        kind = {"gpt2": "GPT-2", "bert": "BERT"}[model.config.model_type]
        mask = {"gpt2": Causal(), "bert": Complete()}[model.config.model_type]
        title = f"{kind}, {name or 'random weights'}, {sum(p.numel() for p in model.parameters()):,} parameters"
        pairs = f"{batch.num_nodes} tokens in {batch.num_graphs} documents, {mask(batch).count:,} pairs"
        console.print(table(f"{title}\n{pairs}", ways))
        console.print(verdict(ways))
        results.append((title, ways))
    draw(results, folder / "equivalence.png")
    console.print(f"picture  {folder / 'equivalence.png'}", soft_wrap=True)
