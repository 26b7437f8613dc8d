"""The architectures in plain NumPy, text by text, in float64: shares nothing with the graph.

Written from their definitions: BERT (Devlin et al. 2018, arXiv 1810.04805), NomicBERT (Nussbaum et
al. 2024, arXiv 2402.01613) with rotary positions (Su et al. 2021, arXiv 2104.09864) and SwiGLU
(Shazeer 2020, arXiv 2002.05202), and the pooling of sentence-transformers, with whose version 5
BERT and mean pooling agree on all-MiniLM-L6-v2 to 3e-7.
"""

import math

import numpy as np

_erf = np.vectorize(math.erf)


def embed(tensors: dict, manifest, ids: list[int]) -> np.ndarray:
    """Return the float64 [hidden] unit vector of one text's ids."""
    encode = {"bert": _bert, "nomic-bert": _nomic_bert}[manifest.architecture]
    tensors = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    hidden = encode(tensors, manifest.encoder, ids)
    vector = hidden[0] if manifest.pooling == "cls" else hidden.mean(axis=0)
    return vector / np.linalg.norm(vector)


def _bert(tensors, settings, ids):
    def linear(x, name):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(x, name):
        return _norm(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], settings.epsilon)

    words = tensors["embeddings.word_embeddings.weight"][ids]
    positions = tensors["embeddings.position_embeddings.weight"][: len(ids)]
    types = tensors["embeddings.token_type_embeddings.weight"][0]
    x = norm(words + positions + types, "embeddings.LayerNorm")
    for i in range(_count_layers(tensors)):
        layer = f"encoder.layer.{i}"
        query, key, value = (
            _heads(linear(x, f"{layer}.attention.self.{role}"), settings.heads)
            for role in ("query", "key", "value")
        )
        attended = linear(_attend(query, key, value), f"{layer}.attention.output.dense")
        x = norm(x + attended, f"{layer}.attention.output.LayerNorm")
        inner = linear(x, f"{layer}.intermediate.dense")
        active = inner * (1 + _erf(inner / math.sqrt(2))) / 2
        x = norm(x + linear(active, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    return x


def _nomic_bert(tensors, settings, ids):
    def linear(x, name):
        return x @ tensors[f"{name}.weight"].T

    def norm(x, name):
        return _norm(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], settings.epsilon)

    def turn(x):
        # Channels i and i + size / 2 are the two parts of one complex number.
        size = x.shape[-1]
        exponents = np.arange(size // 2) / (size // 2)
        angles = np.outer(np.arange(len(ids)), settings.rotary_base**-exponents)
        turned = (x[..., : size // 2] + 1j * x[..., size // 2 :]) * np.exp(1j * angles)
        return np.concatenate([turned.real, turned.imag], axis=-1)

    words = tensors["embeddings.word_embeddings.weight"][ids]
    x = norm(words + tensors["embeddings.token_type_embeddings.weight"][0], "emb_ln")
    for i in range(_count_layers(tensors)):
        layer = f"encoder.layers.{i}"
        query, key, value = (
            _heads(part, settings.heads)
            for part in np.split(linear(x, f"{layer}.attn.Wqkv"), 3, axis=1)
        )
        context = _attend(turn(query), turn(key), value)
        x = norm(x + linear(context, f"{layer}.attn.out_proj"), f"{layer}.norm1")
        gate = linear(x, f"{layer}.mlp.fc12")
        active = linear(x, f"{layer}.mlp.fc11") * gate / (1 + np.exp(-gate))
        x = norm(x + linear(active, f"{layer}.mlp.fc2"), f"{layer}.norm2")
    return x


def _count_layers(tensors) -> int:
    return len({name.split(".")[2] for name in tensors if name.startswith("encoder.")})


def _norm(x, scale, shift, epsilon):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale + shift


def _heads(x, heads):
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def _attend(query, key, value):
    scores = query @ key.transpose(0, 2, 1) / math.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    context = (weights @ value).transpose(1, 0, 2)
    return context.reshape(len(context), -1)
