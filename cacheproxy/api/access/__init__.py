"""Who may do what: API keys, their scopes, and the file that they may be kept in."""
