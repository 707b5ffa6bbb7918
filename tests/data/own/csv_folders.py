"""Folders of CSV files, opened as graphs for tests."""

from gt.data.graphs import GraphData
from gt.data.own.csv_graphs import CSVGraphs
from tests.data.modules import make_data


def open_data(folder, **options):
    data = make_data(GraphData, CSVGraphs, str(folder), root=str(folder.parent / "built"), **options)
    data.open([])
    return data
