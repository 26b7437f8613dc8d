"""The recipe: from a manifest to a model that has passed its gate, all in memory.

Fetch, read, write the float graph, quantise on the calibration texts, measure on the held-out
ones, distil the probe. What is measured runs in the session that serves.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.modelkit.calibrate import TokenGroups
from cacheproxy.modelkit.corpus import add_prefixes, group_by_length, read_corpus, tokenize
from cacheproxy.modelkit.distill import distill_probe
from cacheproxy.modelkit.fetch import fetch_files
from cacheproxy.modelkit.gate import GateReport, measure, require_pass
from cacheproxy.modelkit.graph import float_graph, int8_graph
from cacheproxy.modelkit.isa import isa_class, weight_bits
from cacheproxy.modelkit.manifest import Manifest, models_folder
from cacheproxy.modelkit.progress import say
from cacheproxy.modelkit.quantize import quantize
from cacheproxy.modelkit.weights import read_encoder


@dataclass(frozen=True)
class BuiltModel:
    """A model that has passed its gate; `record` is what is written down about it."""

    graph: bytes
    tokenizer_json: bytes
    probe: NDArray[np.float16]
    report: GateReport
    isa: str
    record: dict[str, Any]


def build(manifest: Manifest, home: Path) -> BuiltModel:
    """Return the model of a manifest.

    Raises:
        ModelError: its files cannot be had or are not what they should be, or it fails its gate.
    """
    isa = isa_class()
    files = fetch_files(manifest, home)
    tokenizer_json = files["tokenizer.json"].read_bytes()
    encoder = read_encoder(files["model.safetensors"], manifest)
    corpus = read_corpus(models_folder())

    def groups(texts: tuple[str, ...]) -> list[NDArray[np.int64]]:
        served_texts = add_prefixes(texts, manifest.prefixes)
        return group_by_length(tokenize(served_texts, tokenizer_json, manifest.max_tokens))

    quantized = quantize(encoder, TokenGroups(groups(corpus.calibration)), weight_bits(isa))
    graph = int8_graph(quantized)
    served = OnnxEncoder(graph)
    say("measuring the INT8 model against the float model")
    report = measure(
        served.encode, OnnxEncoder(float_graph(encoder)).encode, groups(corpus.held_out)
    )
    require_pass(report, manifest.name)
    say("distilling the probe")
    special = _special_tokens(tokenizer_json)
    around = tokenize([""], tokenizer_json, manifest.max_tokens)[0]
    probe = distill_probe(served.encode, len(encoder.words), (around[0], around[-1]), special)
    return BuiltModel(
        graph=graph,
        tokenizer_json=tokenizer_json,
        probe=probe,
        report=report,
        isa=isa,
        record={
            "name": manifest.name,
            "aliases": list(manifest.aliases),
            "dimensions": manifest.dimensions,
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


def _special_tokens(tokenizer_json: bytes) -> list[int]:
    added = json.loads(tokenizer_json)["added_tokens"]
    return [token["id"] for token in added if token["special"]]
