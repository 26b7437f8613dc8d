"""Named states in SQLite: small values that processes share, such as evidence."""

from cacheproxy.keys import hex_id
from cacheproxy.stores.embedded.database import Connection, transaction


def read_state(connection: Connection, name: str, now: float) -> bytes | None:
    """Return the live state of that name."""
    row = connection.execute(
        "SELECT state FROM states WHERE name = ? AND expires_at > ?", (hex_id(name), now)
    ).fetchone()
    return None if row is None else bytes(row[0])


def swap_state(
    connection: Connection, name: str, old: bytes | None, new: bytes, expires_at: float, now: float
) -> bool:
    """Write a state if it still is `old`, or there is none and `old` is None."""
    with transaction(connection):
        if read_state(connection, name, now) != old:
            return False
        connection.execute(
            "INSERT OR REPLACE INTO states (name, state, expires_at) VALUES (?, ?, ?)",
            (hex_id(name), new, expires_at),
        )
        connection.execute("DELETE FROM states WHERE expires_at <= ?", (now,))
    return True
