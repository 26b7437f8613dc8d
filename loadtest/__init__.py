"""The load tester: it sends traffic to a server, measures it, and runs the benchmarks.

In a checkout it is `python -m loadtest`. The wheel carries the same files as `cacheproxy.loadtest`,
so that nothing but `cacheproxy` appears in site-packages; that is why its modules import each other
by relative names. Nothing of the proxy imports it.
"""
