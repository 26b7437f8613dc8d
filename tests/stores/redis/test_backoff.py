from cacheproxy.stores.redis.link import Backoff


def test_pauses_double_up_to_two_seconds_with_jitter_and_begin_anew_after_a_reset():
    backoff = Backoff()
    pauses = [backoff.next_pause_s() for _ in range(8)]
    longest = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]

    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
    backoff.reset()
    assert backoff.next_pause_s() <= 0.05
