"""A GPU is used when it is asked for and can be had, and never otherwise."""

import numpy as np
import onnxruntime
import pytest

from cacheproxy.errors import ConfigError
from cacheproxy.inference.session import OnnxEncoder
from cacheproxy.modelkit.building.build import build
from cacheproxy.modelkit.manifest import load_manifest

HAS_CUDA = "CUDAExecutionProvider" in onnxruntime.get_available_providers()


def test_only_the_cpu_is_used_unless_a_gpu_is_asked_for(installed, monkeypatch):
    asked = []
    session = onnxruntime.InferenceSession

    def spy(*args, providers, **more):
        asked.append([provider for provider, _ in providers])
        return session(*args, providers=providers, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    OnnxEncoder(installed.graph)

    assert asked == [["CPUExecutionProvider"]]


@pytest.mark.skipif(HAS_CUDA, reason="this onnxruntime can use a GPU")
def test_a_gpu_that_onnxruntime_cannot_use_is_refused(installed):
    with pytest.raises(ConfigError, match=r"CUDAExecutionProvider.*onnxruntime-gpu"):
        OnnxEncoder(installed.graph, device="cuda")


def test_a_provider_that_cannot_be_loaded_is_refused(installed, monkeypatch):
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    # As ONNX Runtime does where the CUDA libraries are missing: it falls back without a word.
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda *args, providers, **more: session(*args, providers=["CPUExecutionProvider"], **more),
    )

    with pytest.raises(ConfigError, match="could not be loaded"):
        OnnxEncoder(installed.graph, device="cuda")


@pytest.mark.skipif(not HAS_CUDA, reason="no GPU that onnxruntime can use")
def test_the_model_passes_its_gate_on_a_gpu(model_home):
    built = build(load_manifest("all-MiniLM-L6-v2"), model_home, "cuda")

    assert built.isa == "cuda"
    assert built.report.cosine_least > 0.9999
    vectors = OnnxEncoder(built.graph, device="cuda").encode(np.full((3, 5), 2_000))
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
