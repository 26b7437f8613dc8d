"""The vector library and the inference runtime live in one process."""

import subprocess
import sys


def test_the_runtime_can_be_loaded_after_the_store():
    code = "import cacheproxy.stores.embedded.store, onnxruntime; print(onnxruntime.__version__)"

    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)

    assert loaded.returncode == 0, loaded.stderr.decode()
