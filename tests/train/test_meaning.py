"""The meaning of the rows of embedding tables and heads, compared between two schemas."""

from typing import Any

import pytest
import torch

from gt.data.text.tokenizer import Bytes, Characters
from gt.heads import Head
from gt.schema import Schema
from gt.train.meaning import changed_parts, copy_common_rows, difference, output_weights, rows_by_meaning


def text_schema(letters: str) -> Schema:
    """The schema of a text of some characters, as `gt.data.text.language` makes it."""
    tokenizer, size = Characters(letters), len(letters)
    return Schema((size,), level="node", outputs=size, names=tokenizer.names, tokenizer=tokenizer.dumps())


def test_rows_are_matched_by_token_and_category() -> None:
    for part in ("nodes", "head"):
        current, saved = rows_by_meaning(text_schema("bcd"), part), rows_by_meaning(text_schema("abc"), part)
        assert [(current[token], saved[token]) for token in current if token in saved] == [(0, 1), (1, 2)]
    assert set(rows_by_meaning(text_schema("abc"), "nodes")) == {"a", "b", "c"}
    assert rows_by_meaning(Schema(tokenizer=Bytes().dumps()), "nodes") == {}
    columns = Schema(node_vocab=(2, 3), node_names=("a", "b"), node_categories=(("x", "y"), (4, 5, 6)))
    assert rows_by_meaning(columns, "nodes")["b", 5] == 3
    assert rows_by_meaning(Schema(node_vocab=(2, 3)), "nodes") == {}


def class_schema(*names: str, **options: Any) -> Schema:
    return Schema(outputs=len(names), names=names, **options)


def target_schema(*names: str, **options: Any) -> Schema:
    return class_schema(*names, kind="binary", **options)


@pytest.mark.parametrize(
    ("saved", "current", "reason"),
    [
        (class_schema("a", "b"), class_schema("b", "a"), "other classes"),
        (target_schema("a", "b"), target_schema("b", "a"), "other targets"),
        (target_schema("a", "b"), class_schema("a", "b"), "other classes"),
        (class_schema("a", "b"), Schema(outputs=2), "other classes"),
        (target_schema("a", answers=(("no", "yes"),)), target_schema("a", answers=(("yes", "no"),)), "other targets"),
        (text_schema("abc"), text_schema("bcd"), "other tokens"),
        (class_schema("a", "b"), class_schema("a", "b", level="node"), None),
        (target_schema("a"), target_schema("b"), None),  # the name of a single target does not matter
        (Schema(outputs=2), Schema(outputs=2), None),
        (Schema(outputs=2), Schema(outputs=3), None),
        (Schema(outputs=2, pointer=True), Schema(outputs=3, pointer=True), None),
    ],
)
def test_changed_meaning_of_outputs_is_detected(saved: Schema, current: Schema, reason: str | None) -> None:
    assert changed_parts(saved, current).get("head") == (reason and f"the data have {reason}")


def test_difference_lists_only_short_values() -> None:
    first, *others = (
        class_schema("neg", "pos"),
        class_schema("pos", "neg"),
        class_schema("a" * 80, "b"),
        Schema(outputs=2),
    )
    shown = "what they predict"
    assert [difference(first, other) for other in others] == [f"{shown}: neg, pos and pos, neg", shown, shown]
    assert difference(first, first) == difference(first, others[0], but=("names",)) == ""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    assert difference(text_schema(letters[:-1]), text_schema(letters[1:])) == "the tokens they read"


def test_changed_tokenizer_without_names_is_detected() -> None:
    texts = [Schema((9,), level="node", outputs=9, tokenizer=tokens) for tokens in ("one", "another")]
    assert changed_parts(*texts)["head"] == "the data have other tokens"


def test_rows_are_copied_for_each_position() -> None:
    saved, current = (class_schema(*names, positions=2) for names in ("abc", "ca"))
    value, old = torch.zeros(4, 1), torch.arange(6.0)[:, None]
    assert copy_common_rows("head", value, old, current, saved) == 4
    assert value.flatten().tolist() == [2, 0, 5, 3]
    assert copy_common_rows("head", torch.zeros(4, 1), old[:5], current, saved) == 0  # a head of another depth
    assert copy_common_rows("head", torch.zeros(4, 2), old, current, saved) == 0


def test_output_weights_are_the_last_layer_of_the_head() -> None:
    def last_layer(schema: Schema, **options: Any) -> set[str]:
        net = torch.nn.Module()
        net.head = Head(8, schema, **options)
        return output_weights(net, schema)

    assert last_layer(class_schema("a", "b")) == {"head.mlp.4.weight", "head.mlp.4.bias"}
    assert last_layer(class_schema("a", "b"), hidden=0) == {"head.mlp.0.weight", "head.mlp.0.bias"}
    assert last_layer(Schema(level="link", kind="binary"), dot=True) == set()
    assert last_layer(Schema(outputs=2, pointer=True)) == set()
    assert output_weights(torch.nn.Linear(1, 1), Schema()) == set()
