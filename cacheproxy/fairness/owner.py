"""For whom the running code works: the tenant whose request it serves.

Threads and queues that several tenants share ask `current_owner`. The HTTP edge says so once it
knows the API key, in the request's own context, which its tasks inherit. Work that belongs to no
request, and all work of a server without API keys, has the owner `NOBODY`.
"""

from contextvars import ContextVar

NOBODY = ""

_owner: ContextVar[str] = ContextVar("owner", default=NOBODY)

current_owner = _owner.get
"""Returns the `keys.tenant_id` of the tenant that the current task works for, or `NOBODY`."""

work_for = _owner.set
"""Sets whom the current task works for."""
