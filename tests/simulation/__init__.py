"""The real pipeline in a simulated world, driven by one seed; a model of the promises judges it.

What is simulated: clocks, chance, the event loops' time, threads, the network, Redis, the model's
inference and the upstreams. What is real: everything in `cacheproxy` from the routes down to the
bytes that are sent to the store. `docs/simulation.md` says more.
"""
