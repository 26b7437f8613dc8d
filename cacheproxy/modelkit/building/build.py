"""The recipe: from a manifest to a model that has passed its gate, all in memory.

Fetch, read, quantise on the calibration texts (or, for a GPU, round to float16), measure on the
held-out ones, make the probes. What is measured runs in the session that serves.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from tokenizers import Tokenizer

from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.modelkit.building.built import GPU_TOLERANCE, BuiltModel, Probes
from cacheproxy.modelkit.building.calibrate import TokenGroups
from cacheproxy.modelkit.building.corpus import (
    Corpus,
    add_prefixes,
    group_by_length,
    make_search,
    read_corpus,
    tokenize,
)
from cacheproxy.modelkit.building.distill import distill_probe
from cacheproxy.modelkit.building.fetch import fetch_files
from cacheproxy.modelkit.building.graph import (
    features_graph,
    float_graph,
    half_graph,
    int8_graph,
    shallow_graph,
)
from cacheproxy.modelkit.building.quantize import quantize
from cacheproxy.modelkit.building.quantized import QuantizedEncoder
from cacheproxy.modelkit.building.reranker import build_reranker
from cacheproxy.modelkit.building.shallow import fit_probe
from cacheproxy.modelkit.building.weights import Encoder, read_encoder
from cacheproxy.modelkit.external import move_weights
from cacheproxy.modelkit.gate.gate import require_pass
from cacheproxy.modelkit.gate.measure import GateTexts, measure
from cacheproxy.modelkit.isa import isa_class, weight_bits
from cacheproxy.modelkit.manifest import Manifest, models_folder
from cacheproxy.modelkit.progress import say
from cacheproxy.settings.device import Device


def build(manifest: Manifest, home: Path, device: Device) -> BuiltModel:
    """Return the model of a manifest, for a device.

    Raises:
        ConfigError: ONNX Runtime cannot use the device.
        ModelError: its files cannot be fetched or are invalid, or it fails its gate.
    """
    files = fetch_files(manifest, home)
    make = build_reranker if manifest.kind == "rerank" else _build_embedder
    built = make(manifest, files, device)
    return move_weights(built) if device == "cpu" else built


def _build_embedder(manifest: Manifest, files: Mapping[str, Path], device: Device) -> BuiltModel:
    tokenizer_json = files["tokenizer.json"].read_bytes()
    encoder = read_encoder(files[manifest.weights], manifest)
    corpus = read_corpus(models_folder())

    texts = tokenize(
        add_prefixes(corpus.calibration, manifest.prefixes), tokenizer_json, manifest.max_tokens
    )
    shallow: Encoder | QuantizedEncoder
    if device == "cuda":
        shallow, graph = encoder, half_graph(encoder)
    else:
        shallow = quantize(encoder, TokenGroups(group_by_length(texts)), weight_bits(isa_class()))
        graph = int8_graph(shallow)
    served = OnnxEncoder(graph, device=device)
    say("measuring the model against the float model")
    gate_texts = _gate_texts(corpus, manifest, tokenizer_json)
    original = OnnxEncoder(float_graph(encoder))
    tolerance = GPU_TOLERANCE if device == "cuda" else 0.0
    report = measure(served.encode, original.encode, gate_texts, batch_tolerance=tolerance)
    del original
    require_pass(report, manifest.name)
    say("making the probes")
    special = _special_tokens(tokenizer_json)
    around = tokenize([""], tokenizer_json, manifest.max_tokens)[0]
    static = distill_probe(served.encode, len(encoder.words), (around[0], around[-1]), special)
    features = OnnxEncoder(features_graph(shallow))
    words = _words(tokenizer_json)
    weight, bias = fit_probe(features.encode, served.encode, texts, words)
    return BuiltModel(
        graph=graph,
        tokenizer_json=tokenizer_json,
        probes=Probes(static, shallow_graph(shallow, weight, bias)),
        report=report,
        isa=isa_class(device),
        record={
            "name": manifest.name,
            "aliases": list(manifest.aliases),
            "dimensions": manifest.dimensions,
            "matryoshka": list(manifest.matryoshka),
            "max_tokens": manifest.max_tokens,
            "vocabulary_size": len(encoder.words),
            "pooling": manifest.pooling,
            "prefixes": {
                "query": manifest.prefixes.query,
                "document": manifest.prefixes.document,
            },
            "sources_sha256": dict(manifest.files),
        },
    )


def _gate_texts(corpus: Corpus, manifest: Manifest, tokenizer_json: bytes) -> GateTexts:
    query, document = manifest.prefixes.query, manifest.prefixes.document
    search = make_search(corpus)

    def ids(texts: Iterable[str], prefix: str = "") -> list[list[int]]:
        prefixed = [prefix + text for text in texts]
        return tokenize(prefixed, tokenizer_json, manifest.max_tokens)

    return GateTexts(
        held_out=ids(add_prefixes(corpus.held_out, manifest.prefixes)),
        firsts=ids((pair.a for pair in corpus.pairs), query),
        seconds=ids((pair.b for pair in corpus.pairs), query),
        scores=[pair.score for pair in corpus.pairs],
        queries=ids(search.queries, query),
        documents=ids(search.documents, document),
    )


def _words(tokenizer_json: bytes) -> list[int]:
    """Return the ids of what texts are made of: no special tokens, no places left unused."""
    tokenizer = Tokenizer.from_buffer(tokenizer_json)
    marks = (("[", "]"), ("<", ">"))
    return sorted(
        number
        for token, number in tokenizer.get_vocab().items()
        if not any(len(token) > 2 and (token[0], token[-1]) == mark for mark in marks)
    )


def _special_tokens(tokenizer_json: bytes) -> list[int]:
    added = json.loads(tokenizer_json)["added_tokens"]
    return [token["id"] for token in added if token["special"]]
