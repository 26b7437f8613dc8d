"""`python -m cacheproxy`."""

from cacheproxy.cli import main

main(prog_name="cacheproxy")
