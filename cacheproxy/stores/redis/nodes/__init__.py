"""What is done at each node of a Redis Cluster: the gate before it, and searches by probe."""
