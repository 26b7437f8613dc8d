"""Starts all: brings the database up to date, then the worker and the web server."""

import subprocess
import sys

from django.core.management import call_command
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Migrates, then runs the worker and the web server."

    def add_arguments(self, parser):
        parser.add_argument("address", nargs="?", default="127.0.0.1:8000")

    def handle(self, *, address, **_):
        call_command("migrate", verbosity=0)
        worker = subprocess.Popen([sys.executable, sys.argv[0], "embed", "--watch"])
        try:
            call_command("runserver", address, use_reloader=False)
        finally:
            worker.terminate()
            worker.wait()
