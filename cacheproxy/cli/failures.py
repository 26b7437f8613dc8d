"""How a command ends: one line for each error, and an exit code that says what kind it was.

0 done, 1 the examined store is broken, 2 a wrong command or setting; of sysexits.h, 65 (EX_DATAERR)
done but for rows that cannot be embedded, 69 (EX_UNAVAILABLE) the store or the server did not do
what was asked, 78 (EX_CONFIG) no usable model.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from cacheproxy.errors import ApiError, CacheproxyError, ConfigError, ModelError

EXIT_BROKEN = 1
EXIT_USAGE = 2
EXIT_REFUSED_ROWS = 65
EXIT_UNAVAILABLE = 69
EXIT_NO_MODEL = 78


def end(code: int, error: Exception) -> NoReturn:
    """Print each line of an error to standard error, and exit with a code."""
    for line in str(error).splitlines():
        click.echo(f"cacheproxy: {line}", err=True)
    sys.exit(code)


@contextmanager
def reported_failures() -> Iterator[None]:
    """End the command with the right exit code if the body raises one of our errors."""
    try:
        yield
    except ModelError as error:
        end(EXIT_NO_MODEL, error)
    except (ConfigError, ApiError) as error:
        end(EXIT_USAGE, error)
    except CacheproxyError as error:
        end(EXIT_UNAVAILABLE, error)
