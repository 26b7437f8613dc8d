"""How many requests the proxy may make on its own account: a pure token bucket."""


class Budget:
    """So many a minute, and as many at once.

    Attributes:
        per_minute: how many.
    """

    def __init__(self, per_minute: float) -> None:
        self.per_minute = per_minute
        self._left = per_minute
        self._as_of_s = 0.0

    def has_any(self, now_s: float) -> bool:
        """Return whether one may be made at a time (monotonic, seconds)."""
        grown = (now_s - self._as_of_s) / 60 * self.per_minute
        self._left = min(self.per_minute, self._left + max(0.0, grown))
        self._as_of_s = now_s
        return self._left >= 1

    def take(self, now_s: float) -> None:
        """Make one; the caller has seen that there is room."""
        if self.has_any(now_s):
            self._left -= 1
