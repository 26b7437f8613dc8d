"""`cacheproxy loadtest`: the load tester's own command line.

The wheel carries it as `cacheproxy.loadtest`. In a checkout it is the folder `loadtest` beside the
package, importable because both lie in the same folder.
"""

from importlib import import_module
from importlib.util import find_spec

import click

_INSTALLED, _CHECKOUT = "cacheproxy.loadtest", "loadtest"


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def loadtest(arguments: tuple[str, ...]) -> None:
    """Send test traffic to a server, and run benchmarks."""
    package = _INSTALLED if find_spec(_INSTALLED) else _CHECKOUT
    start = import_module(f"{package}.__main__")
    start.main(arguments, name="cacheproxy loadtest")
