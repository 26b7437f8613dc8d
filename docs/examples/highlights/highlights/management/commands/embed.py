"""The worker: embeds what has no embedding yet."""

import signal
import sys
import time

from django.core.management.base import BaseCommand

from highlights.embedding import embed_batch


class Command(BaseCommand):
    help = "Embeds the highlights that have no embedding yet."

    def add_arguments(self, parser):
        parser.add_argument("--batch", type=int, default=64, help="highlights in a request")
        parser.add_argument("--watch", action="store_true", help="go on, and look every second")

    def handle(self, *, batch, watch, **_):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        while True:
            tried = embed_batch(batch)
            if tried:
                self.stdout.write(f"tried {tried}")
            elif not watch:
                return
            else:
                time.sleep(1)
