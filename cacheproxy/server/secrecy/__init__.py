"""What keeps a process's secrets: TLS of its listeners, no core dumps."""
