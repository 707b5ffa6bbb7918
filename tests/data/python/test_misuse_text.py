"""Words, labels and printed examples of variable misuse, read back from the source files."""

import ast
import shutil
import textwrap

import pytest
import torch

from gt.data.batch_sampler import Request
from gt.data.python import misuse
from gt.data.python.misuse import samples
from gt.data.python.syntax import NODE_TYPES
from gt.data.python.views import HIDDEN_WORD, UNKNOWN
from tests.data.python.misuse_library import LIBRARY, open_data


def test_examples_print_source_and_prediction(misuse_stores):
    class Oracle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = torch.nn.Parameter(torch.zeros(1))

        def forward(self, batch):
            return 50.0 * torch.nn.functional.one_hot(batch.y, misuse.MAX_VARIABLES)

    for data in misuse_stores.values():
        printed = data.examples(Oracle(), "test")
        assert printed.count(misuse.HOLE) == 3
        for example in printed.strip().split("\n\n"):
            words = example.splitlines()[-1].split()
            assert words[1] == words[-1]  # the most probable variable is correct
            assert words[2].startswith("1.00")
            code = "\n".join(example.splitlines()[1:-1])
            restored = textwrap.dedent(code).replace(misuse.HOLE, words[1])
            assert restored in function_sources(data)


def functions_with_unknown_words(data):
    """Yield the test functions with words outside the training vocabulary, with their expected and actual labels.

    For each: its hidden node, the words from its file, the label of each node, and the name of each candidate variable
    by the node of its first mention.
    """
    dataset, source, column = data.dataset("test"), data.source, data.source.column
    locations = source.names(data.graphs)
    for index, number in enumerate(dataset.ids):
        batch = dataset[Request((index,))]
        if not (batch.x[:, column] == UNKNOWN).any():
            continue
        module = ast.parse((source.path / locations["file"][number]).read_text())
        (sample,) = (found for found in samples(module) if found.line == locations["line"][number])
        words = [word or NODE_TYPES[kind] for word, kind in zip(sample.tree.words, sample.tree.types, strict=True)]
        choices = range(int(batch.extras["candidate"].max()))
        first = [int((batch.extras["candidate"] == choice + 1).nonzero()[0]) for choice in choices]
        names = [source.spelled(data.graphs, [number], torch.tensor([[choice]]), batch)[0] for choice in choices]
        labels = source.labels(data.graphs, number, batch)
        hole = int(batch.extras["query"].argmax())
        yield hole, words if source.view == "graph" else sample.tokens, labels, dict(zip(first, names, strict=True))


@pytest.mark.parametrize("view", ["graph", "sequence"])
def test_unknown_words_are_read_from_the_file(misuse_stores, view):
    functions = list(functions_with_unknown_words(misuse_stores[view]))
    assert functions
    for hole, words, labels, names in functions:
        assert labels[hole] == HIDDEN_WORD
        assert [*labels[:hole], *labels[hole + 1 :]] == [*words[:hole], *words[hole + 1 :]]
        assert names == {node: words[node] for node in names}


def test_words_of_changed_file_stay_unknown(misuse_folder, tmp_path):
    data = open_data(shutil.copytree(misuse_folder, tmp_path / "copy"), "graph", tmp_path)
    for path in data.source.path.glob("*.py"):
        path.write_text(path.read_text().replace("width * height", "width * height * 1"))
    functions = [
        (words, labels, names) for _, words, labels, names in functions_with_unknown_words(data) if "area" in words
    ]
    assert functions
    for words, labels, names in functions:
        assert len(words) > len(labels)
        assert "<unknown>" in labels
        assert {f"node {node}" for node in names if labels[node] == "<unknown>"} <= {*names.values()}


def function_sources(data):
    modules = [ast.parse(path.read_text()) for path in data.source.path.glob("*.py")]
    for module in modules:
        samples(module)  # strips docstrings
    return {ast.unparse(node) for module in modules for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}


def test_changed_or_missing_file_has_no_example(tmp_path):
    path = tmp_path / "file.py"
    path.write_text(LIBRARY)
    first = samples(ast.parse(LIBRARY))[0]
    hole, mention = first.slots[0][:2]
    assert misuse.describe(path, first.line, 0, hole, {mention: 1.0})
    for text in (
        "",
        "def broken(",
        LIBRARY.replace("def area", "\n\n\ndef area"),
        LIBRARY.replace("width * height", "1"),
    ):
        path.write_text(text)
        assert misuse.describe(path, first.line, 0, hole, {mention: 1.0}) == ""
    path.unlink()
    assert misuse.describe(path, first.line, 0, hole, {mention: 1.0}) == ""
