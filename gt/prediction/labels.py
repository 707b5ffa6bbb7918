"""Readable labels for the nodes of a graph."""

from gt.data.batching import GraphDataset
from gt.data.datamodule import DataModule
from gt.data.graphs import GraphData
from gt.data.text.tokenizer import loads
from gt.graph import GraphBatch
from gt.schema import Schema


def labels_of(data: DataModule, dataset: object, sample: int, batch: GraphBatch) -> tuple[list[str], str | None]:
    """A label for each node of one graph, its token, category, atom or number; and the SMILES of a molecule."""
    schema, x = data.schema, batch.x
    assert x is not None
    first = x[:, 0].tolist()
    if schema.tokenizer:
        tokenizer = loads(schema.tokenizer)
        return [tokenizer.decode([int(token)]) for token in first], None
    if isinstance(data, GraphData) and isinstance(dataset, GraphDataset):
        source_labels = data.source.labels(data.graphs, int(dataset.ids[sample]), batch)
        if source_labels is not None:
            return source_labels, None
        smiles = data.source.smiles_of(data.graphs)
        if smiles is not None:
            text = smiles[int(dataset.ids[sample])]
            atoms = atoms_of(text)
            if len(atoms) == batch.num_nodes:
                return atoms, text
    columns = [n for n, values in enumerate(schema.node_categories) if any(isinstance(value, str) for value in values)]
    if schema.node_vocab and columns:
        # use the column with the most categories, or another for nodes where it is empty
        columns.sort(key=lambda n: len(schema.node_categories[n]), reverse=True)
        rows = [
            [_category(schema, n, value) for n, value in zip(columns, row, strict=True)]
            for row in x[:, columns].tolist()
        ]
        return [next((word for word in row if word), "") for row in rows], None
    return [str(n) for n in range(batch.num_nodes)], None


def _category(schema: Schema, column: int, value: float) -> str:
    categories = schema.node_categories[column]
    return str(categories[int(value)]) if int(value) < len(categories) else str(int(value))


def atoms_of(smiles: str) -> list[str]:
    """The symbols of the atoms of a molecule; empty without RDKit."""
    try:
        from rdkit import Chem, rdBase
    except ImportError:
        return []
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    return [] if molecule is None else [atom.GetSymbol() for atom in molecule.GetAtoms()]
