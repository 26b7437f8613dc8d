"""Copies of the example applications, as a reader has them."""

import os
import subprocess
from collections.abc import Callable

import pytest
from example_application import Application, example_environment


@pytest.fixture
def python_application(tmp_path) -> Callable[..., Application]:
    """Return a function that makes a copy of a Python application, and installs what it needs."""

    def make(name: str, **environment: str) -> Application:
        programs = example_environment() / "bin"
        path = f"{programs}:{os.environ['PATH']}"
        clean = {one: value for one, value in os.environ.items() if one != "PYTHONPATH"}
        application = Application(name, tmp_path, {**clean, "PATH": path, **environment})
        # Every requirement has to be there already, in the version that is pinned.
        subprocess.run(
            [programs / "pip", "install", "--quiet", "--no-index", "-r", "requirements.txt"],
            cwd=application.folder,
            check=True,
            timeout=300,
        )
        return application

    return make
