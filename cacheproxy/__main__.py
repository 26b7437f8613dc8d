"""`python -m cacheproxy`."""

from cacheproxy.cli.main import main

main(prog_name="cacheproxy")
