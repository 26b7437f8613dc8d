"""Both programs, run twice. The proxy of CACHEPROXY_URL needs an upstream that has CHAT_MODEL."""

import re
import subprocess
import sys
import unittest
import uuid
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent

PAGE = """# Harbour {number}

The lighthouse of harbour {number} was built in 1874 and is painted red.

## Ferries

Ferries leave harbour {number} every hour from six in the morning.
"""


class ChatTest(unittest.TestCase):
    def run_program(self, name: str, question: str, page: Path) -> tuple[str, int, int]:
        """Return the answer, and how many hits and misses there were."""
        done = subprocess.run(
            [sys.executable, HERE / name, question, page],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        answer, hits, misses = re.fullmatch(
            r"(.+)\ncache: (\d+) hits, (\d+) misses\n", done.stdout, re.DOTALL
        ).groups()
        return answer, int(hits), int(misses)

    def check(self, name: str) -> None:
        number = uuid.uuid4().hex  # never seen before
        question = f"What colour is the lighthouse of harbour {number}?"
        with TemporaryDirectory() as folder:
            page = Path(folder) / "harbour.md"
            page.write_text(PAGE.format(number=number))
            first, hits, misses = self.run_program(name, question, page)
            self.assertEqual(hits, 0)
            self.assertGreaterEqual(misses, 3)  # passages, question, answer
            second, hits, again = self.run_program(name, question, page)
        self.assertEqual((second, hits, again), (first, misses, 0))

    def test_langchain_second_run_is_all_hits(self):
        self.check("langchain_chat.py")

    def test_llama_index_second_run_is_all_hits(self):
        self.check("llama_index_chat.py")


if __name__ == "__main__":
    unittest.main()
