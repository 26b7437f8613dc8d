"""Against a cacheproxy at CACHEPROXY_URL."""

import os
import tempfile
import unittest
from pathlib import Path
from unittest.mock import patch

import openai

FOLDER = tempfile.TemporaryDirectory()
os.environ["LIBRARY"] = str(Path(FOLDER.name) / "library.sqlite")

import app  # noqa: E402
from database import connect, matching, telling_words, trigrams  # noqa: E402
from load import load  # noqa: E402
from searching import K, fuse  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

DOCUMENTS = [
    ("Cache stampedes", "Many clients miss the same entry at once and all of them ask the origin."),
    ("Expiry", "An entry lives for its time to live. Then the next client computes it anew."),
    ("Sourdough", "The starter of a sourdough bread is fed with flour and water every day."),
    ("Kneading", "Dough that was kneaded well rises faster in the warm kitchen."),
    ("ZRANGEBYSCORE", "Returns the members of a sorted set whose score is within limits."),
]


def tearDownModule():
    FOLDER.cleanup()


class LibraryTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.added = load(os.environ["LIBRARY"], iter(DOCUMENTS))
        cls.client = TestClient(app.app)

    def titles(self, path, **query):
        answer = self.client.get(path, params=query)
        self.assertEqual(answer.status_code, 200, answer.text)
        return [one["title"] for one in answer.json()["results"]]

    def test_loading_again_adds_nothing(self):
        self.assertEqual(self.added, 5)
        self.assertEqual(load(os.environ["LIBRARY"], iter(DOCUMENTS)), 0)

    def test_the_fused_score_is_the_sum_of_reciprocal_ranks(self):
        scores = fuse([[{1}, {2}], [{2}, {3, 1}]])
        self.assertAlmostEqual(scores[1], 1 / (K + 1) + 1 / (K + 2))
        self.assertAlmostEqual(scores[2], 1 / (K + 2) + 1 / (K + 1))
        self.assertAlmostEqual(scores[3], 1 / (K + 2))

    def test_a_search_finds_by_meaning_without_a_word_in_common(self):
        answer = self.client.get("/search", params={"q": "baking loaves at home"}).json()
        self.assertIn(answer["results"][0]["title"], {"Sourdough", "Kneading"})
        self.assertTrue({"text", "title"}.isdisjoint(answer["results"][0]["signals"]))

    def test_each_of_the_six_signals_counts(self):
        self.client.post("/documents/1/opened")
        answer = self.client.get("/search", params={"q": "Which stampedes do clients make?"}).json()
        best = answer["results"][0]
        self.assertEqual(best["title"], "Cache stampedes")
        signals = {"text", "title", "spelling", "meaning", "whole", "opened"}
        self.assertEqual(set(best["signals"]), signals)

    def test_what_readers_open_rises(self):
        query = {"q": "bread dough in the kitchen with flour"}
        order = self.titles("/search", **query)
        second = order.index("Kneading") if order[0] == "Sourdough" else order.index("Sourdough")
        number = [title for title, _ in DOCUMENTS].index(order[second]) + 1
        for _ in range(3):
            self.client.post(f"/documents/{number}/opened")
        self.assertLess(self.titles("/search", **query).index(order[second]), second + 1)

    def test_a_misspelt_title_is_found_by_its_trigrams(self):
        db = connect(os.environ["LIBRARY"])
        words = telling_words(db, "zrangbyscore", 5)
        self.assertEqual(matching(db, "title_words", words, 5), [])
        self.assertEqual(matching(db, "title_pieces", trigrams("zrangbyscore"), 5)[0], 5)
        self.assertEqual(self.titles("/search", q="zrangbyscore")[0], "ZRANGEBYSCORE")

    def test_related_items_are_of_other_documents_and_infer_nothing(self):
        with patch.object(app, "embed", side_effect=AssertionError):
            titles = self.titles("/chunks/3/related", limit=2)
        self.assertEqual(titles[0], "Kneading")
        self.assertNotIn("Sourdough", titles)

    def test_without_the_proxy_words_alone_find(self):
        away = openai.OpenAI(base_url="http://127.0.0.1:1/v1", api_key="unused", max_retries=0)
        with patch("embedding._client", away):
            answer = self.client.get("/search", params={"q": "stampedes of clients"}).json()
        self.assertTrue(answer["by_words_alone"])
        self.assertEqual(answer["results"][0]["title"], "Cache stampedes")

    def test_bad_input_is_told(self):
        for path in ("/search", "/search?q=x&limit=0", "/search?q=x&limit=many"):
            self.assertEqual(self.client.get(path).status_code, 400)
        self.assertEqual(self.client.get("/chunks/99/related").status_code, 404)
        self.assertEqual(self.client.post("/documents/99/opened").status_code, 404)
        # Signs of FTS5's query language are only text here.
        self.assertEqual(self.client.get("/search", params={"q": '"a* OR (NEAR'}).status_code, 200)


if __name__ == "__main__":
    unittest.main()
