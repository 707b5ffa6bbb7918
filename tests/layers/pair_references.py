"""Reference implementations of layers with a state for each pair: loops over targets, sources and heads."""

import math
from functools import partial

import torch
from torch.nn import functional as F

from gt.layers import EGT, GRASS, GRIT, SAN
from gt.layers.dwivedi import EdgeGated
from tests.layers.references import WIDTH, rows

HEADS = 2
D = WIDTH // HEADS


def zeros(*shape):
    return torch.zeros(shape)


def softmax_weights(scores, gate=None):
    """Softmax of a list of numbers, optionally times a list of gates."""
    weights = torch.stack(scores).softmax(0)
    return list(weights if gate is None else weights * torch.stack(gate))


def split_heads(vector):
    return vector.view(HEADS, D)


def grit(layer, x, p, pairs):
    source, target = pairs.edges.tolist()
    q, (k, v) = layer.query(x), layer.key_value(x).chunk(2, 1)
    state = []
    for pair, (j, i) in enumerate(zip(source, target, strict=True)):
        scale, shift = layer.of_pair(p[pair]).chunk(2)
        s = (q[i] + k[j]) * scale
        signed = torch.where(s > 0, s.clamp(min=1e-300).sqrt(), -(-s).clamp(min=1e-300).sqrt())
        state.append(F.relu(signed + shift))
    read = []
    for i in range(len(x)):
        incoming = [pair for pair in range(len(source)) if target[pair] == i]
        heads = []
        for h in range(HEADS):
            channels = slice(h * D, (h + 1) * D)
            if not incoming:
                heads.append(zeros(D))
                continue
            w = softmax_weights([(state[pair][channels] @ layer.score[h]).clamp(-5, 5) for pair in incoming])
            values = [v[source[pair]][channels] + state[pair][channels] @ layer.pair_value[h] for pair in incoming]
            heads.append(sum(a * b for a, b in zip(w, values, strict=True)))
        h = torch.cat(heads)
        degree = math.log(1 + int((pairs.batch.edge_index[1] == i).sum()))
        read.append(h * layer.by_degree[0] + degree * h * layer.by_degree[1])
    return {"x": layer.project_out["x"](rows(read)), "p": layer.project_out["p"](rows(state))}


def egt(layer, x, p, pairs):
    source, target = pairs.edges.tolist()
    q, k, v = layer.project_in(x).chunk(3, 1)
    bias, gate = layer.of_pair(p).chunk(2, 1)
    scores = []
    for pair, (j, i) in enumerate(zip(source, target, strict=True)):
        product = (split_heads(q[i]) * split_heads(k[j])).sum(1) / math.sqrt(D)
        scores.append(product.clamp(-5, 5) + bias[pair])
    read = []
    for i in range(len(x)):
        incoming = [pair for pair in range(len(source)) if target[pair] == i]
        heads = []
        for h in range(HEADS):
            if not incoming:
                heads.append(zeros(D))
                continue
            gates = [torch.sigmoid(gate[pair, h]) for pair in incoming]
            w = softmax_weights([scores[pair][h] for pair in incoming], gates)
            total = sum(a * split_heads(v[source[pair]])[h] for a, pair in zip(w, incoming, strict=True))
            heads.append(total * torch.log(1 + sum(gates)))
        read.append(torch.cat(heads))
    return {"x": layer.project_out(rows(read)), "p": layer.project_pair_out(rows(scores, HEADS))}


def san(layer, x, p, pairs):
    source, target = pairs.edges.tolist()
    edges = {tuple(edge) for edge in pairs.batch.edge_index.T.tolist()}
    v, read = layer.value(x), []
    for i in range(len(x)):
        numerator, denominator = zeros(HEADS, D), zeros(HEADS, 1)
        for pair, j in enumerate(source):
            if target[pair] != i or (i == j and (j, i) not in edges):
                continue
            kind, share = ("edge", 1.0) if (j, i) in edges else ("other", layer.gamma)
            q, k = (
                split_heads(part) for part in (layer.query_key[kind](x[n]).chunk(2)[c] for c, n in ((0, i), (1, j)))
            )
            s = (q * k * split_heads(layer.gate[kind](p[pair]))).sum(1, keepdim=True) / math.sqrt(D)
            w = s.clamp(-5, 5).exp() * share / (1 + layer.gamma)
            numerator, denominator = numerator + w * split_heads(v[j]), denominator + w
        read.append((numerator / (denominator + 1e-6)).flatten())
    return {"x": layer.project_out(rows(read))}


def grass(layer, x, p, pairs):
    source, target = (pairs.edges.flip(0) if layer.reverse else pairs.edges).tolist()
    self_term, sent, of_source, of_target = layer.of_node(x).chunk(4, 1)
    kept, carried, scores = layer.of_pair(p).chunk(3, 1)
    read, states = [], []
    for i in range(len(x)):
        incoming = [pair for pair in range(len(source)) if target[pair] == i]
        numerator, denominator = zeros(WIDTH), zeros(WIDTH)
        for pair in incoming:
            largest = torch.stack([scores[other] for other in incoming]).max(0)[0].detach()
            w = (scores[pair] - largest).exp() + 1e-7**0.5
            numerator, denominator = numerator + w * (sent[source[pair]] + carried[pair]), denominator + w
        read.append(F.mish(self_term[i] + numerator / (denominator + 1e-7) + layer.bias["x"]))
    for pair, (j, i) in enumerate(zip(source, target, strict=True)):
        states.append(F.mish(of_source[j] + of_target[i] + kept[pair] + layer.bias["p"]))
    x, p = layer.project_out["x"](rows(read)), layer.project_out["p"](rows(states))
    return {"x": layer.scale * x, "p": layer.scale * p}


def gated(layer, x, p, pairs):
    source, target = pairs.edges.tolist()
    q, k, v = layer.project_in(x).chunk(3, 1)
    state = [
        q[i] * k[j] / math.sqrt(D) * layer.project_edge(p[pair])
        for pair, (j, i) in enumerate(zip(source, target, strict=True))
    ]
    read = []
    for i in range(len(x)):
        numerator, denominator = zeros(HEADS, D), zeros(HEADS, 1)
        for pair, j in enumerate(source):
            if target[pair] == i:
                w = split_heads(state[pair]).sum(1, keepdim=True).clamp(-5, 5).exp()
                numerator, denominator = numerator + w * split_heads(v[j]), denominator + w
        read.append((numerator / (denominator + 1e-6)).flatten())
    return {"x": layer.project_out["x"](rows(read)), "p": layer.project_out["p"](rows(state))}


LAYERS = {
    "GRIT": (partial(GRIT, heads=HEADS), grit),
    "EGT": (partial(EGT, heads=HEADS), egt),
    "SAN": (partial(SAN, heads=HEADS, gamma=0.3), san),
    "GRASS": (GRASS, grass),
    "GRASS, turned around": (partial(GRASS, reverse=True), grass),
    "GT under a mask": (partial(EdgeGated, heads=HEADS, pairs=True), gated),
}
