"""An alarm that a rate of errors has risen above what it was known to be.

Page's CUSUM in betting form: W <- max(1, W) E, where E is the likelihood ratio of "some times
worse" to "unchanged". Each label comes with its own band's rate, so that bands that are checked
more often need no weights. The larger W is, the stronger the evidence; correct labels lower it.
"""


class Alarm:
    """One watched stream of labels, compared with a rate that is `times` the known one."""

    def __init__(self, times: float) -> None:
        self.level = 1.0
        self._times = times

    def label(self, is_wrong: bool, rate: float) -> None:
        """Add a label whose band had an error rate of at most `rate`, between 0 and 1."""
        worse = min(self._times * rate, (1 + rate) / 2)
        ratio = worse / rate if is_wrong else (1 - worse) / (1 - rate)
        self.level = max(1.0, self.level) * ratio
