"""Purges in Redis: how they are numbered, announced, carried out, and survive a failover."""
