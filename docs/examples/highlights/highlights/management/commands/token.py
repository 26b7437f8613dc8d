"""Prints the token of a user, who is made if new."""

from django.contrib.auth import get_user_model
from django.core import signing
from django.core.management.base import BaseCommand


class Command(BaseCommand):
    help = "Prints the API token of a user, who is made if new."

    def add_arguments(self, parser):
        parser.add_argument("name")

    def handle(self, *, name, **_):
        user, _ = get_user_model().objects.get_or_create(username=name)
        self.stdout.write(signing.dumps(user.pk, salt="token"))
