"""How much of everything a cache needs: hit rates, memory, nodes, network and cost, reckoned."""
