"""The recipe for rerankers: from fetched files to a model that has passed its gate, all in memory.

As for embedding models, but with pairs in place of texts, and without probes: scores are looked up
by their keys only.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

from cacheproxy.inference.input import Pair
from cacheproxy.inference.pairs import PairTokenizer
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.modelkit.building.built import GPU_TOLERANCE, BuiltModel
from cacheproxy.modelkit.building.calibrate import TokenGroups
from cacheproxy.modelkit.building.corpus import Corpus, group_by_length, make_pairs, read_corpus
from cacheproxy.modelkit.building.graph import float_graph, half_graph, int8_graph
from cacheproxy.modelkit.building.quantize import quantize
from cacheproxy.modelkit.building.weights import Encoder, read_encoder
from cacheproxy.modelkit.gate.gate import require_pass
from cacheproxy.modelkit.gate.ranking import measure_ranking
from cacheproxy.modelkit.isa import isa_class, weight_bits
from cacheproxy.modelkit.manifest import Manifest, models_folder
from cacheproxy.modelkit.progress import say
from cacheproxy.settings.device import Device

_CALIBRATION_DISTRACTORS = 1
"""For each query of calibration, so that half of its pairs do not belong together."""

_GATE_DISTRACTORS = 11
"""For each query of the gate: a rank has room to change, also beyond the tenth."""

_GATE_SENTENCES = 4
"""Of a text, that are queries of the gate: 153 queries, three times as many as first sentences, so
that chance moves the loss of nDCG@10 less than the gate allows."""


def build_reranker(manifest: Manifest, files: Mapping[str, Path], device: Device) -> BuiltModel:
    """Return the reranker of a manifest, for a device.

    Raises:
        ConfigError: ONNX Runtime cannot use the device.
        ModelError: its files are invalid, or it fails its gate.
    """
    built = make_reranker(manifest, files, device)
    require_pass(built.report, manifest.name)
    return built


def make_reranker(manifest: Manifest, files: Mapping[str, Path], device: Device) -> BuiltModel:
    """Return the same with its report, whatever that says; raises as `build_reranker` does."""
    tokenizer_json = files["tokenizer.json"].read_bytes()
    encoder = read_encoder(files[manifest.weights], manifest)
    offset = 0 if encoder.second is None else len(encoder.words)
    tokenizer = PairTokenizer(tokenizer_json, manifest.max_tokens, offset)
    corpus = read_corpus(models_folder())
    graph = _graph(encoder, tokenizer, corpus, device)
    served = OnnxEncoder(graph, device=device)
    say("measuring the model against the float model")
    candidates = [
        tokenizer.encode([Pair(*pair) for pair in of_one])
        for of_one in make_pairs(corpus.held_out, _GATE_DISTRACTORS, _GATE_SENTENCES)
    ]
    original = OnnxEncoder(float_graph(encoder))
    tolerance = GPU_TOLERANCE if device == "cuda" else 0.0
    report = measure_ranking(served.encode, original.encode, candidates, batch_tolerance=tolerance)
    return BuiltModel(
        graph=graph,
        tokenizer_json=tokenizer_json,
        probes=None,
        report=report,
        isa=isa_class(device),
        record={
            "name": manifest.name,
            "aliases": list(manifest.aliases),
            "kind": manifest.kind,
            "dimensions": 1,
            "max_tokens": manifest.max_tokens,
            "vocabulary_size": len(encoder.words),
            "segment_offset": offset,
            "pooling": manifest.pooling,
            "prefixes": {"query": "", "document": ""},
            "sources_sha256": dict(manifest.files),
        },
    )


def _graph(encoder: Encoder, tokenizer: PairTokenizer, corpus: Corpus, device: Device) -> bytes:
    if device == "cuda":
        return half_graph(encoder)
    pairs = tokenizer.encode([Pair(*pair) for pair in _calibration_pairs(corpus.calibration)])
    groups = TokenGroups(group_by_length(pairs))
    return int8_graph(quantize(encoder, groups, weight_bits(isa_class())))


def _calibration_pairs(texts: Iterable[str]) -> list[tuple[str, str]]:
    """Return queries with documents of their own and others, and short texts with each other."""
    texts = list(texts)
    searched = [pair for of_one in make_pairs(texts, _CALIBRATION_DISTRACTORS) for pair in of_one]
    return [*searched, *zip(texts[::4], texts[2::4], strict=False)]
