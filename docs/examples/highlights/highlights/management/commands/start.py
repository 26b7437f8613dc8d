"""Starts all: brings the database up to date, then the worker and the web server."""

import signal
import subprocess
import sys

from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Migrates, then runs the worker and the web server."

    def add_arguments(self, parser):
        parser.add_argument("address", nargs="?", default="127.0.0.1:8000")

    def handle(self, *, address, **_):
        # An orderly end, with which the database of the wheel ends, too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        call_command("migrate", verbosity=0)
        command = [sys.executable, sys.argv[0], "embed", "--watch"]
        worker = subprocess.Popen(command, start_new_session=True)  # Ctrl-C is for this process
        try:
            call_command("runserver", address, use_reloader=False)
        finally:
            worker.terminate()
            worker.wait()
