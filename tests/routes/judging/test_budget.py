from cacheproxy.routes.judging.budget import Budget


def test_so_many_may_be_made_at_once_and_then_so_many_a_minute():
    budget = Budget(3)
    made = 0
    for _ in range(5):
        if budget.has_any(1_000.0):
            budget.take(1_000.0)
            made += 1
    assert made == 3
    assert not budget.has_any(1_019.0)
    assert budget.has_any(1_020.0)
    budget.take(1_020.0)
    assert not budget.has_any(1_020.0)
    for _ in range(3):
        assert budget.has_any(9_000.0)
        budget.take(9_000.0)
    assert not budget.has_any(9_000.0)
