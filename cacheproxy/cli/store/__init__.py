"""The commands of operators: what the store is like, what it holds, and what is to go."""
