"""Questions that must not share an answer have different signatures."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cacheproxy.routes.chat.signature import signature_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Who won in 2019?", "Who won in 2020?"),
        ("What is 12% of 80?", "What is 12% of 90?"),
        ("Convert 1,000 euros", "Convert 1,500 euros"),
        ("a flight for two people", "a flight for three people"),
        ("from 3 to 5", "from 5 to 3"),
        ("Is it open on Monday?", "Is it open on Tuesday?"),
        ("the weather in May", "the weather in June"),
        ("What happened yesterday?", "What happened?"),
        ("Is it safe?", "Is it not safe?"),
        ("Should I go?", "Shouldn't I go?"),
        ("Can I pay?", "Can\u2019t I pay?"),
        ("with sugar", "without sugar"),
        ('Translate "cat"', 'Translate "dog"'),
        ("Translate “cat”", "Translate “dog”"),
        ("What does 'break' do?", "What does 'continue' do?"),
        ("Explain `map`", "Explain `filter`"),
        ("Fix ```x = 1```", "Fix ```x = y```"),
        ("What is os.path?", "What is os.walk?"),
        ("Use snake_case", "Use another_case"),
        ("iPhone X v3.1", "iPhone X v3.2"),
        ("What does --force do?", "What does --quiet do?"),
        ("Read /etc/hosts", "Read /etc/passwd"),
        ("Write to a@example.org", "Write to b@example.org"),
    ],
)
def test_what_differs_in_a_number_a_date_a_negation_a_quote_or_code(one, other):
    assert signature_of(one) != signature_of(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("How do I reset my password?", "how can I reset the password"),
        ("Who won in 2019?", "In 2019, who won?"),
        ("Is it not safe?", "It isn't safe, is it?"),
        ("Don't I pay?", "Don\u2019t I pay?"),
        ("It's my brother's car", "my brother's car, that is"),
        ('Translate "cat"', "Translate “cat” please"),
        ("What costs 1,000 euros?", "what does 1000 euros buy?"),
    ],
)
def test_other_wordings_share_a_signature(one, other):
    assert signature_of(one) == signature_of(other)


@given(st.text(max_size=200))
def test_any_text_has_one(text):
    assert signature_of(text) == signature_of(text)
