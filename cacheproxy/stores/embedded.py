"""The store in this process: entries in SQLite (a file, or memory), probes in usearch graphs.

The default store: no server, warm again after a restart or a kill -9. This module decides which
thread does what and in which slices; `rows` has the SQL, `vectors` the graphs, `database` the file.

A file is served by three threads with a connection each, so that a batch being written delays no
read (WAL readers never wait), and indexing, the slowest work, delays neither. A database in memory
exists within one connection only: there, one thread does all, and slices let others in between.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import batched
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cacheproxy.errors import StoreError
from cacheproxy.stores import rows
from cacheproxy.stores.database import Connection, Database, Worker
from cacheproxy.stores.rows import WRITE_ROWS, Removed
from cacheproxy.stores.store import Entry, Neighbour, Partition
from cacheproxy.stores.vectors import CATCH_UP_ROWS, VectorIndexes
