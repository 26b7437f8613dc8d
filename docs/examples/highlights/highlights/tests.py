"""Against the real database, and a cacheproxy at CACHEPROXY_URL."""

from datetime import timedelta
from io import StringIO
from operator import mul
from random import Random

import openai
from django.contrib.auth import get_user_model
from django.core import signing
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import TransactionTestCase
from django.utils import timezone

from . import embedding
from .models import MOST_ATTEMPTS, Highlight

TEXTS = [
    "A cache stampede is when many clients miss the same entry at once.",
    "When an entry expires, all who want it may ask the origin together.",
    "Bread dough rises faster in a warm kitchen.",
    "Sourdough needs a starter that is fed every day.",
]


class HighlightsTest(TransactionTestCase):
    def setUp(self):
        self.ada, self.bob = (
            get_user_model().objects.create(username=name) for name in ("ada", "bob")
        )

    def get(self, user, path, status=200, **query):
        answer = self.client.get(path, query, headers=self.headers(user))
        self.assertEqual(answer.status_code, status, answer.content)
        return answer.json()

    def post(self, user, rows, status=202):
        answer = self.client.post(
            "/import", rows, content_type="application/json", headers=self.headers(user)
        )
        self.assertEqual(answer.status_code, status, answer.content)
        return answer.json()

    def headers(self, user):
        return {"Authorization": f"Bearer {signing.dumps(user.pk, salt='token')}"}

    def imported(self, user, texts=TEXTS, **more):
        return self.post(user, [{"source": "a book", "text": text, **more} for text in texts])

    def work(self):
        call_command("embed", stdout=StringIO())

    def break_proxy(self):
        working = embedding._client
        embedding._client = openai.OpenAI(
            base_url="http://127.0.0.1:1/v1", api_key="unused", max_retries=0
        )
        self.addCleanup(setattr, embedding, "_client", working)
        return lambda: setattr(embedding, "_client", working)

    def test_an_import_is_kept_at_once_and_embedded_by_the_worker(self):
        self.assertEqual(self.imported(self.ada), {"imported": 4})
        self.assertEqual(self.get(self.ada, "/embedding-status")["pending"], 4)
        self.work()
        status = {"total": 4, "embedded": 4, "pending": 0, "failed": 0}
        self.assertEqual(self.get(self.ada, "/embedding-status"), status)

    def test_an_import_needs_no_proxy(self):
        self.break_proxy()
        self.assertEqual(self.imported(self.ada), {"imported": 4})

    def test_what_was_imported_and_embedded_is_so_once(self):
        self.imported(self.ada)
        self.work()
        before = list(Highlight.objects.order_by("pk").values_list("pk", "embedding"))
        self.assertEqual(self.imported(self.ada), {"imported": 0})
        self.work()
        after = list(Highlight.objects.order_by("pk").values_list("pk", "embedding"))
        self.assertEqual(str(before), str(after))

    def test_a_failure_is_retried_later_each_time(self):
        mend = self.break_proxy()
        self.imported(self.ada, TEXTS[:1])
        pauses = []
        for attempt in (1, 2, 3):
            Highlight.objects.update(next_attempt_at=timezone.now())
            began_at = timezone.now()
            self.work()
            row = Highlight.objects.get()
            self.assertEqual(row.attempts, attempt)
            pauses.append(row.next_attempt_at - began_at)
        self.assertGreater(pauses[2], timedelta(seconds=4))
        self.assertEqual(self.get(self.ada, "/embedding-status")["pending"], 1)

        mend()
        Highlight.objects.update(next_attempt_at=timezone.now())
        self.work()
        self.assertEqual(self.get(self.ada, "/embedding-status")["embedded"], 1)

    def test_a_text_that_is_refused_holds_up_no_other(self):
        self.imported(self.ada, [*TEXTS, "too long " * 10_000])
        self.work()
        status = {"total": 5, "embedded": 4, "pending": 0, "failed": 1}
        self.assertEqual(self.get(self.ada, "/embedding-status"), status)
        refused = Highlight.objects.get(attempts=MOST_ATTEMPTS)
        self.assertIn("characters", refused.failure)

    def test_two_workers_never_take_the_same_rows(self):
        self.imported(self.ada)
        other = connections.create_connection("default")
        self.addCleanup(other.close)
        with transaction.atomic():
            held = list(Highlight.objects.due().select_for_update(skip_locked=True)[:3])
            with other.cursor() as cursor:
                cursor.execute("SELECT id FROM highlights_highlight FOR UPDATE SKIP LOCKED")
                free = {row[0] for row in cursor.fetchall()}
        self.assertEqual(len(held), 3)
        self.assertTrue(free.isdisjoint(row.pk for row in held))

    def test_search_ranks_by_the_cosine_of_the_vectors(self):
        self.imported(self.ada)
        self.work()
        query = "What happens when a cache entry expires and many clients want it?"
        results = self.get(self.ada, "/search", q=query, threshold=-1)["results"]
        [vector] = embedding.embed([query])
        for one in results:
            stored = Highlight.objects.get(pk=one["id"]).embedding
            self.assertAlmostEqual(one["similarity"], sum(map(mul, vector, stored)), places=5)
        similarities = [one["similarity"] for one in results]
        self.assertEqual(similarities, sorted(similarities, reverse=True))
        self.assertEqual({one["text"] for one in results[:2]}, set(TEXTS[:2]))

        threshold = (similarities[1] + similarities[2]) / 2
        some = self.get(self.ada, "/search", q=query, threshold=threshold)["results"]
        self.assertEqual(some, results[:2])

    def test_scopes_show_mine_and_what_others_share(self):
        self.imported(self.ada, TEXTS[:1])
        self.imported(self.bob, TEXTS[1:2])
        self.imported(self.bob, TEXTS[2:], private=True)
        self.work()

        def found(user, scope):
            results = self.get(user, "/search", q="dough", scope=scope, threshold=-1)["results"]
            return {one["text"] for one in results}

        self.assertEqual(found(self.ada, "mine"), set(TEXTS[:1]))
        self.assertEqual(found(self.ada, "all"), set(TEXTS[:2]))
        self.assertEqual(found(self.bob, "all"), set(TEXTS))
        hidden = Highlight.objects.get(text=TEXTS[3])
        self.get(self.ada, f"/highlights/{hidden.pk}/similar", status=404)

    def test_similar_needs_no_proxy_and_leaves_itself_out(self):
        self.imported(self.ada)
        self.work()
        self.break_proxy()
        first = Highlight.objects.get(text=TEXTS[0])
        results = self.get(self.ada, f"/highlights/{first.pk}/similar", threshold=-1)["results"]
        self.assertEqual(len(results), 3)
        self.assertEqual(results[0]["text"], TEXTS[1])

    def test_bad_input_and_a_missing_proxy_are_told(self):
        self.post(self.ada, {"text": "no list"}, status=400)
        self.get(self.ada, "/search", status=400)
        self.get(self.ada, "/search", status=400, q="x", scope="theirs")
        self.assertEqual(self.client.get("/search", {"q": "x"}).status_code, 401)
        self.break_proxy()
        self.get(self.ada, "/search", status=503, q="x")

    def test_the_index_answers_a_search(self):
        draw = Random(1)
        vectors = [[draw.gauss(0, 1) for _ in range(384)] for _ in range(500)]
        rows = [
            Highlight(owner=self.ada, source="s", text=str(number), embedding=vector)
            for number, vector in enumerate(vectors)
        ]
        Highlight.objects.bulk_create(rows)
        near = Highlight.objects.seen_by(self.ada, "all").near(rows[0].embedding, -1)[:10]
        with transaction.atomic(), connection.cursor() as cursor:
            # So few rows are sorted faster. Without sorting, only the right index gives the order.
            cursor.execute("SET LOCAL enable_sort = off")
            self.assertIn("Index Scan using by_cosine", near.explain())
            self.assertEqual(near[0].pk, rows[0].pk)
