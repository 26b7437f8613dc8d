"""Debian's Go, with which tests build programs."""

import os
from pathlib import Path

import platformdirs
from debian_programs import need_program


def go_environment() -> dict[str, str]:
    """Return an environment in which `go` is on the PATH; skip or fail where there can be none."""
    program = need_program("go", "golang-go", "usr/bin/go", with_depends=True)
    compiler = program.path.resolve()  # Debian's is a link into the folder that has the library
    path = f"{compiler.parent}:{os.environ['PATH']}"
    root = Path(compiler).parents[1]
    home = os.environ.get("CACHEPROXY_TEST_HOME") or platformdirs.user_cache_dir("cacheproxy")
    return {
        **program.environment,
        "PATH": path,
        "GOROOT": str(root),
        "CGO_ENABLED": "0",
        # Go's library is compiled once; tests of Go's own run each time, whatever passed before.
        "GOCACHE": str(Path(home) / "test-go"),
        "GOFLAGS": "-count=1",
    }
