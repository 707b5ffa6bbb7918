"""A small library of functions for variable misuse, and its data module."""

from gt.data.graphs import GraphData
from gt.data.python.functions import PythonFunctions

LIBRARY = '''
def area(width, height):
    """The product: width * height."""
    size = width * height
    return size

def walk(tree, found=None):
    for name, child in tree.items():
        found = walk(child, found or [name]) if child else found
    return [item for item in found if item is not name]

class Store:
    def add(self, key, *values, **options):
        global total
        total = len(values)
        text = f"{key}: {values}"
        if key in self.kept:
            raise KeyError(key, text)
        self.kept[key] = [value.copy() for value in values]
        def undo(value, key=key):
            nonlocal values
            values = (value, key, options)
            return self.kept.pop(key)
        return undo

def nothing():
    return print("ä", open, None, 1, 2, 3)

def alone(word):
    return word.upper().lower().strip().title() + word

def ünïcode(größe, maß):
    länge = 'ä' + größe * maß; print('öö', länge, maß, größe)
'''


def open_data(folder, view, tmp_path, **settings) -> GraphData:
    data = GraphData(PythonFunctions("misuse", view, str(folder), root=str(tmp_path)), batch_size=8, **settings)
    data.open([])
    return data
