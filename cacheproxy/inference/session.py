"""The ONNX Runtime session: equal-length token ids in, unit vectors out.

The batcher's threads share one session, and each runs a group on one core. This needs no barrier
between cores, and no spinning thread starves the event loop. A second session, for groups that have
the machine to themselves, has threads of its own. They spin between two operations of a call, which
makes a text of 128 to 256 tokens a fifth faster than if they slept (2 cores, AVX512-VNNI), and stop
when it ends.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cacheproxy.concurrency.time_slices import step_back
from cacheproxy.errors import ConfigError
from cacheproxy.settings.device import Device

# ONNX Runtime's wheels have telemetry built in (1.31); a cache of prompts must not send any.
ort.disable_telemetry_events()

_PROVIDERS: dict[Device, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

_OPTIONS: dict[Device, dict[str, str]] = {
    "cpu": {},
    # Flash, memory-efficient and fused attention, but not cuDNN's, which makes a plan for each new
    # shape: 40 ms each on an H100 (ONNX Runtime 1.31), and groups come in thousands of shapes.
    "cuda": {"sdpa_kernel": "7"},
}

_MOST_CORES = 8
"""Of one call. More would share matrices of a few hundred columns in ever smaller parts, between
barriers that take longer with each core; chosen, not measured."""


class OnnxEncoder:
    """The model's graph, ready to run from several threads at once."""

    def __init__(self, graph: bytes | Path, *, device: Device = "cpu", cores: int = 1) -> None:
        """Load a graph; a file needs less memory than bytes, which ONNX Runtime keeps.

        With more than one core each call uses all of them: slower, unless calls are made singly.
        The session's threads have the scheduling of the thread that loads it.

        Raises:
            ConfigError: ONNX Runtime cannot use the device.
        """
        require_device(device)
        if device == "cuda":
            # Finds CUDA's libraries where NVIDIA's wheels, or PyTorch, have put them.
            ort.preload_dlls()
        provider = _PROVIDERS[device]
        options = ort.SessionOptions()
        options.intra_op_num_threads = cores
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(cores > 1)))
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Group shapes are unbounded, so a memory plan per shape would only cost memory.
        options.enable_mem_pattern = False
        # SkipLayerNormalization is about 9 times slower on CPUs than the Add and
        # LayerNormalization that this fusion replaces (measured, ONNX Runtime 1.31).
        self._session = ort.InferenceSession(
            graph,
            options,
            providers=[(provider, _OPTIONS[device])],
            disabled_optimizers=["SkipLayerNormFusion"],
        )
        # If a provider cannot be loaded, ONNX Runtime silently falls back to the CPU.
        if self._session.get_providers()[0] != provider:
            raise _unusable(device, f"{provider} could not be loaded")

    def encode(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 [n, dim] unit rows for int64 [n, tokens] ids of one length, unpadded."""
        (vectors,) = self._session.run(None, {"input_ids": ids})
        return np.asarray(vectors, dtype=np.float32)


def load_spread(graph: Path, *, device: Device, cores: int) -> OnnxEncoder | None:
    """Return an encoder that spreads each call over cores; None where that is not possible.

    Its bits are those of an encoder on one core.
    """
    if device != "cpu" or cores == 1:
        return None
    most = min(cores, _MOST_CORES)
    with ThreadPoolExecutor(1, initializer=step_back) as stepped_back:
        return stepped_back.submit(OnnxEncoder, graph, cores=most).result()


def require_device(device: Device) -> None:
    """Check that ONNX Runtime supports the device.

    Raises:
        ConfigError: it does not.
    """
    provider = _PROVIDERS[device]
    if provider not in ort.get_available_providers():
        raise _unusable(device, f"this onnxruntime has no {provider}")


def _unusable(device: Device, reason: str) -> ConfigError:
    return ConfigError(
        f"device: {device} cannot be used: {reason}; "
        "pip uninstall onnxruntime && pip install onnxruntime-gpu"
    )
