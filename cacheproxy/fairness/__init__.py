"""How tenants divide what they share: memory, places in queues, and time."""
