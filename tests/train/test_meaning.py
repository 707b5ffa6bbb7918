"""Which rows of tables and heads stand for the same in data of another reading."""

from typing import Any

import pytest
import torch

from gt.data.text.tokenizer import Bytes, Characters
from gt.heads import Head
from gt.schema import Schema
from gt.train.meaning import changed_parts, copy_common_rows, difference, output_weights, rows_by_meaning


def language(letters: str) -> Schema:
    """That of a text of some letters, as `gt.data.text.language` makes it."""
    tokenizer, size = Characters(letters), len(letters)
    return Schema((size,), level="node", outputs=size, names=tokenizer.names, tokenizer=tokenizer.dumps())


def test_a_token_keeps_its_row_in_another_alphabet() -> None:
    for part in ("nodes", "head"):
        ours, old = rows_by_meaning(language("bcd"), part), rows_by_meaning(language("abc"), part)
        assert [(ours[meant], old[meant]) for meant in ours if meant in old] == [(0, 1), (1, 2)]
    assert set(rows_by_meaning(language("abc"), "nodes")) == {"a", "b", "c"}
    assert rows_by_meaning(Schema(tokenizer=Bytes().dumps()), "nodes") == {}
    columns = Schema(node_vocab=(2, 3), node_names=("a", "b"), node_categories=(("x", "y"), (4, 5, 6)))
    assert rows_by_meaning(columns, "nodes")["b", 5] == 3
    assert rows_by_meaning(Schema(node_vocab=(2, 3)), "nodes") == {}


def classes(*names: str, **more: Any) -> Schema:
    return Schema(outputs=len(names), names=names, **more)


def targets(*names: str, **more: Any) -> Schema:
    return classes(*names, kind="binary", **more)


@pytest.mark.parametrize(
    ("theirs", "ours", "why"),
    [
        (classes("a", "b"), classes("b", "a"), "other classes"),
        (targets("a", "b"), targets("b", "a"), "other targets"),
        (targets("a", "b"), classes("a", "b"), "other classes"),
        (classes("a", "b"), Schema(outputs=2), "other classes"),
        (targets("a", answers=(("no", "yes"),)), targets("a", answers=(("yes", "no"),)), "other targets"),
        (language("abc"), language("bcd"), "other tokens"),
        (classes("a", "b"), classes("a", "b", level="node"), None),
        (targets("a"), targets("b"), None),  # a single target may be called anything
        (Schema(outputs=2), Schema(outputs=2), None),
        (Schema(outputs=2), Schema(outputs=3), None),
        (Schema(outputs=2, pointer=True), Schema(outputs=3, pointer=True), None),
    ],
)
def test_outputs_that_mean_something_else_are_told(theirs: Schema, ours: Schema, why: str | None) -> None:
    assert changed_parts(theirs, ours).get("head") == (why and f"the data have {why}")


def test_what_two_networks_differ_in_is_shown_where_it_is_short() -> None:
    first, *others = classes("neg", "pos"), classes("pos", "neg"), classes("a" * 80, "b"), Schema(outputs=2)
    shown = "what they predict"
    assert [difference(first, other) for other in others] == [f"{shown}: neg, pos and pos, neg", shown, shown]
    assert difference(first, first) == difference(first, others[0], but=("names",)) == ""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert difference(language(letters[:-1]), language(letters[1:])) == "the tokens they read"


def test_outputs_are_told_by_tokens_that_have_no_names() -> None:
    texts = [Schema((9,), level="node", outputs=9, tokenizer=tokens) for tokens in ("one", "another")]
    assert changed_parts(*texts)["head"] == "the data have other tokens"


def test_each_position_of_a_target_has_its_rows() -> None:
    theirs, ours = (classes(*names, positions=2) for names in ("abc", "ca"))
    value, old = torch.zeros(4, 1), torch.arange(6.0)[:, None]
    assert copy_common_rows("head", value, old, ours, theirs) == 4
    assert value.flatten().tolist() == [2, 0, 5, 3]
    assert copy_common_rows("head", torch.zeros(4, 1), old[:5], ours, theirs) == 0  # a head of another depth
    assert copy_common_rows("head", torch.zeros(4, 2), old, ours, theirs) == 0


def test_the_last_map_of_a_head_is_that_of_its_outputs() -> None:
    def last(schema: Schema, **options: Any) -> set[str]:
        net = torch.nn.Module()
        net.head = Head(8, schema, **options)
        return output_weights(net, schema)

    assert last(classes("a", "b")) == {"head.mlp.4.weight", "head.mlp.4.bias"}
    assert last(classes("a", "b"), hidden=0) == {"head.mlp.0.weight", "head.mlp.0.bias"}
    assert last(Schema(level="link", kind="binary"), dot=True) == set()
    assert last(Schema(outputs=2, pointer=True)) == set()
    assert output_weights(torch.nn.Linear(1, 1), Schema()) == set()
