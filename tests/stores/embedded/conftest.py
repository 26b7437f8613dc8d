"""What the tests of the embedded store share: where its file is."""

from pathlib import Path

import pytest


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "made" / "by" / "open" / "cache.sqlite"
