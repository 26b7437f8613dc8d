"""What `cacheproxy doctor` finds out about a store: one finding each, with what to do about it."""
