"""The ONNX Runtime session: equal-length token ids in, unit vectors out.

One session, shared by the batcher's threads, each of which runs a group alone on one core: that
needs no barrier between cores, and no spinning thread ever starves the event loop.
"""

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray


class OnnxEncoder:
    """The model's graph, ready to run from several threads at once."""

    def __init__(self, graph: bytes | Path, *, cores: int = 1) -> None:
        """Load a graph; from a file it costs less memory, as ONNX Runtime keeps given bytes.

        With more than one core a call is spread over them: slower, unless there is only one call.
        """
        options = ort.SessionOptions()
        options.intra_op_num_threads = cores
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        # Group shapes vary without end, so a plan per shape would only cost memory.
        options.enable_mem_pattern = False
        # SkipLayerNormalization is about 9 times slower on CPUs than the Add and
        # LayerNormalization that this fusion replaces (measured, ONNX Runtime 1.31).
        self._session = ort.InferenceSession(
            graph,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=["SkipLayerNormFusion"],
        )

    def encode(self, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return float32 [n, dim] unit rows for int64 [n, tokens] ids of one length, unpadded."""
        (vectors,) = self._session.run(None, {"input_ids": ids})
        return np.asarray(vectors, dtype=np.float32)
