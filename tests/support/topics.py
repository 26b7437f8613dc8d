"""Questions about topics, an upstream that words every answer anew, and a judge that knows."""

import json
import re
from collections import Counter

from asking import wait_until
from chatting import ask, status_of, text_of
from upstream import chunks, completion

WORDS = """
password username avatar email phone address language currency timezone subscription invoice
playlist bookmark calendar contact keyboard printer camera router firewall backup wallpaper ringtone
alarm widget dashboard newsletter coupon voucher receipt passport licence ticket locker garage
garden kitchen balcony bicycle scooter helmet umbrella suitcase blanket mirror candle pillow ladder
hammer drill battery antenna speaker headset monitor scanner tablet notebook marker stapler
"""
TOPICS = WORDS.split()
FORMS = (
    "How do I reset the {} on my account?",
    "How can I reset the {} of my account?",
    "How do I reset the {} for my account?",
    "How could I reset the {} on my account?",
    "How do you reset the {} on an account?",
)
UNSEEN = "In which way do I reset the {} on my account?"


def answer_for(topic: str) -> str:
    return f"To reset it, open the page of the {topic} and follow the steps there."


def topic_of(text: str) -> str | None:
    return next((topic for topic in TOPICS if re.search(rf"\b{topic}\b", text)), None)


def is_right(pair: dict) -> bool:
    """Judge as one who knows the topics' questions, and rejects answers to any other question."""
    topic = topic_of(pair["answer"])
    forms = (*FORMS, UNSEEN)
    known = {form.format(topic).rstrip("?") for form in forms}
    return topic is not None and pair["question"].rstrip("?!") in known


def rewording(verdict=is_right):
    """Return an upstream's behaviour: it words a topic's answers anew, and judges by `verdict`."""
    answered: Counter[str | None] = Counter()

    async def behave(exchange):
        pair = exchange.asked.judged_pair
        if pair is not None:
            said = verdict(pair)
            word = {True: "ACCEPT", False: "REJECT"}.get(said, said)
            await exchange.answer(200, json.dumps(completion(exchange.asked, word)).encode())
            return
        topic = topic_of(exchange.asked.question)
        # Not by the number of the request: ten topics in turns would get five times the same words.
        opening = OPENINGS[answered[topic] % len(OPENINGS)]
        answered[topic] += 1
        text = f"{opening} {answer_for(topic)}"
        if exchange.asked.body.get("stream"):
            await exchange.begin_stream()
            for chunk in chunks(exchange.asked, text):
                await exchange.event(chunk)
            await exchange.end_stream()
        else:
            await exchange.answer(200, json.dumps(completion(exchange.asked, text)).encode())

    return behave


OPENINGS = ("One: sure!", "Two: gladly!", "Three: well!", "Four: right!", "Five: so!")


WAITING = tuple(
    f"cacheproxy_{name}"
    for name in ("semantic_checks_waiting", "chat_waiting", "writeback_queue_entries")
)


def settled(server):
    """Wait until all that was answered has been learned from, and can be found."""
    idle = {f"{name} 0.0" for name in WAITING}
    wait_until(lambda: idle <= set(server.scrape(*WAITING).splitlines()))


def teach(server, topics=TOPICS, **more):
    """Ask every topic in every form; return the answers that were hits by likeness."""
    hits = []
    for form in FORMS:
        for number, topic in enumerate(topics, 1):
            response = ask(server, form.format(topic), **more)
            if "detail=semantic" in status_of(response):
                hits.append((topic, text_of(response)))
            if number % 15 == 0 or number == len(topics):
                settled(server)
    return hits
