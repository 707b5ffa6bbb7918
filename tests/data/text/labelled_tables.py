"""Tables of labelled texts for tests, and what a source reads from them."""

from pathlib import Path

from gt.data.graphs import GraphData
from gt.data.text.classification import TextClassification
from gt.data.text.tokenizer import loads
from tests.data.modules import make_data

ROWS = [(f"a {'good' if i % 3 else 'bad'} film, number {i}", "pos" if i % 3 else "neg") for i in range(60)]


def write_tsv(path: Path, rows=ROWS, header: str = "") -> Path:
    path.write_text(header + "".join(f"{text}\t{label}\n" for text, label in rows), encoding="utf-8")
    return path


def open_data(path: Path, **options) -> TextClassification:
    data = make_data(
        GraphData, TextClassification, str(path), **({"batch_size": 4, "root": str(path.parent / "root")} | options)
    )
    data.open([])
    return data


def decoded_split(data: TextClassification, split: str) -> list[tuple[str, str]]:
    """The texts of a split, decoded from their tokens, with their labels."""
    tokenizer = loads(data.schema.tokenizer)
    texts = []
    for graph in data.graphs.splits[split]:
        start, stop = data.graphs.node_ptr[[graph, graph + 1]]
        tokens = data.graphs.nodes["x"][start:stop, 0].tolist()
        texts.append((tokenizer.decode(tokens), data.schema.names[data.graphs.graphs["y"][graph]]))
    return texts
