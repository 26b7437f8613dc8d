import numpy as np
import pytest

SMALL = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "position_embedding_type": "absolute",
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 200,
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}


@pytest.fixture(scope="session")
def small_config():
    return dict(SMALL)


@pytest.fixture(scope="session")
def small_tensors():
    """Random weights of a small BERT, named as the real one's are."""
    rng = np.random.default_rng(7)
    hidden, inner = SMALL["hidden_size"], SMALL["intermediate_size"]
    tensors = {}

    def add(name, *shape, scale=0.2, offset=0.0):
        tensors[name] = (offset + rng.normal(size=shape) * scale).astype(np.float32)

    add("embeddings.word_embeddings.weight", SMALL["vocab_size"], hidden, scale=1.0)
    add("embeddings.position_embeddings.weight", SMALL["max_position_embeddings"], hidden)
    add("embeddings.token_type_embeddings.weight", 2, hidden)
    norms = ["embeddings.LayerNorm"]
    for i in range(SMALL["num_hidden_layers"]):
        layer = f"encoder.layer.{i}"
        sizes = {
            f"{layer}.attention.self.query": (hidden, hidden),
            f"{layer}.attention.self.key": (hidden, hidden),
            f"{layer}.attention.self.value": (hidden, hidden),
            f"{layer}.attention.output.dense": (hidden, hidden),
            f"{layer}.intermediate.dense": (inner, hidden),
            f"{layer}.output.dense": (hidden, inner),
        }
        for name, shape in sizes.items():
            add(f"{name}.weight", *shape)
            add(f"{name}.bias", shape[0])
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    for name in norms:
        add(f"{name}.weight", hidden, offset=1.0)
        add(f"{name}.bias", hidden)
    return tensors
