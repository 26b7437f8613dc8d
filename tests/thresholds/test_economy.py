from cacheproxy.thresholds.economy import _LONGEST_REST, _REST, _TRIAL_TEXTS, Economy


def after_a_trial(lookup_s, inference_s):
    economy = Economy()
    economy.inferred(inference_s, 1)
    for _ in range(_TRIAL_TEXTS // 10):
        economy.looked_up(10 * lookup_s, 10, 0)
    assert economy.is_due()
    return economy


def test_lookups_that_spare_more_than_they_cost_go_on():
    economy = after_a_trial(lookup_s=0.001, inference_s=0.2)
    economy.settle(hit_share=0.01)

    assert not economy.is_aside
    assert not economy.is_due()


def test_lookups_that_cost_more_than_they_save_are_paused_and_retried():
    economy = after_a_trial(lookup_s=0.001, inference_s=0.002)
    economy.settle(hit_share=0.2)
    assert economy.is_aside

    economy.passed(_REST * _TRIAL_TEXTS - 1, is_idle=True)
    assert economy.is_aside
    economy.passed(1, is_idle=True)
    assert not economy.is_aside
    assert not economy.is_due()


def trial(economy, hit_share):
    """Make a trial, and return how many texts pass until the next."""
    for _ in range(_TRIAL_TEXTS):
        economy.looked_up(0.001, 1, 0)
    economy.settle(hit_share)
    passed = 0
    while economy.is_aside:
        economy.passed(_TRIAL_TEXTS, is_idle=True)
        passed += 1
    return passed


def test_each_trial_in_vain_doubles_the_rest_until_one_pays():
    economy = Economy()
    economy.inferred(0.002, 1)

    in_vain = [trial(economy, hit_share=0.0) for _ in range(6)]
    assert in_vain == [_REST, 2 * _REST, 4 * _REST, 8 * _REST, _LONGEST_REST, _LONGEST_REST]
    assert trial(economy, hit_share=0.9) == 0
    assert trial(economy, hit_share=0.0) == _REST


def test_a_trial_waits_for_room_but_not_for_ever():
    economy = after_a_trial(lookup_s=0.001, inference_s=0.002)
    economy.settle(hit_share=0.2)

    for _ in range(_LONGEST_REST * _TRIAL_TEXTS - 1):
        economy.passed(1, is_idle=False)
    assert economy.is_aside
    economy.passed(1, is_idle=False)
    assert not economy.is_aside


def test_a_trial_that_waited_begins_when_inference_is_mostly_idle():
    economy = after_a_trial(lookup_s=0.001, inference_s=0.002)
    economy.settle(hit_share=0.2)
    for _ in range(_REST * _TRIAL_TEXTS):
        economy.passed(1, is_idle=False)

    passed = 0
    while economy.is_aside:
        economy.passed(1, is_idle=True)
        passed += 1
    assert 100 < passed < 300
