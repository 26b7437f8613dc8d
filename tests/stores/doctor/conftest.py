"""What tests of the examination need: the rights that the documentation gives."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs/stores.md"


@pytest.fixture
def documented_acl() -> str:
    """The command of docs/stores.md that makes the server's user."""
    return re.search(r"^ACL SETUSER .+$", PAGE.read_text(), re.MULTILINE)[0]


@pytest.fixture
def documented_acl_on_a_cluster() -> list[str]:
    """The further rights that the page gives to that user on a cluster."""
    return re.search(r"On a cluster it also needs `(.+?)`", PAGE.read_text())[1].split()
