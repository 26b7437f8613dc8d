"""The installed load tester: what the wheel brings, and what it says without its libraries."""

import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command: object) -> subprocess.CompletedProcess:
    """Run a command outside of the checkout, which must not be imported instead of the wheel."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        cwd=Path(sys.prefix),
        env={"PATH": "/usr/bin:/bin"},
        timeout=300,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, ROOT)
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("cacheproxy-*.whl")
    return found


@pytest.fixture(scope="module")
def bin_folder(wheel, tmp_path_factory) -> Path:
    """The programs of a new environment with the wheel, and with the libraries of this one."""
    environment = tmp_path_factory.mktemp("installed")
    assert run(sys.executable, "-m", "venv", environment).returncode == 0
    installer = environment / "bin" / "pip"
    done = run(installer, "install", "--no-deps", wheel)
    assert done.returncode == 0, done.stderr
    (packages,) = environment.glob("lib/python3*/site-packages")
    libraries = packages / "libraries_of_the_tests.pth"
    libraries.write_text(sysconfig.get_paths()["purelib"] + "\n")
    return environment / "bin"


def test_the_wheel_adds_nothing_but_cacheproxy_to_site_packages(wheel):
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()

    tops = {name.split("/")[0] for name in names}
    version = wheel.name.split("-")[1]
    assert tops == {"cacheproxy", f"cacheproxy-{version}.dist-info"}
    assert "cacheproxy/loadtest/scenarios/smoke.toml" in names
    assert "cacheproxy/loadtest/results/page/uplot/LICENSE" in names
    assert not [name for name in names if name.endswith(".pyc")]


@pytest.mark.parametrize("command", [["--help"], ["bench", "--help"], ["run", "--help"]])
def test_the_installed_command_has_the_load_tester(bin_folder, command):
    done = run(bin_folder / "cacheproxy", "loadtest", *command)

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: cacheproxy loadtest")


def test_the_installed_load_tester_sends_from_processes_of_its_own(bin_folder):
    command = [bin_folder / "cacheproxy", "loadtest", "run", "--url", "http://127.0.0.1:9"]

    done = run(*command, "--smoke")

    assert done.returncode == 2
    assert "error: " in done.stderr
    assert "Connection refused" in done.stderr


def test_without_the_extra_the_command_says_in_one_line_what_to_install(bin_folder):
    without = (
        "import sys; sys.modules['hdrh'] = None; sys.argv = ['cacheproxy', 'loadtest', 'run'];"
        "from cacheproxy.cli.main import main; main()"
    )

    done = run(bin_folder / "python", "-c", without)

    assert done.returncode == 2
    assert done.stderr == (
        "cacheproxy loadtest needs hdrhistogram: pip install 'cacheproxy[loadtest]'\n"
    )
