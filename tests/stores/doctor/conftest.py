"""What tests of the examination need: the rights that the documentation gives."""

import re
from pathlib import Path

import pytest


@pytest.fixture
def documented_acl() -> str:
    """The command of docs/stores.md that makes the server's user."""
    page = (Path(__file__).parents[3] / "docs/stores.md").read_text()
    return re.search(r"^ACL SETUSER .+$", page, re.MULTILINE)[0]
