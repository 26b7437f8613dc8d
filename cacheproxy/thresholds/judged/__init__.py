"""Thresholds that are earned from the verdicts of a judge that is itself mistaken at times.

What the chat route calls (all of it pure: time and randomness are arguments, nothing waits):

1. *A lookup* gives up to `CANDIDATES` neighbours. `JudgedThresholds.rank` scores them and returns
   the `Pick`, the best one; `serve(pick)` says whether it is a semantic hit.
2. *After either*, `wants_label(pick, served)` says whether this pair goes to the judge. It does so
   with a probability that depends on the score alone, and only where `Allowance` has room.
3. *The judge* is asked through `Asking`, which asks a second time after a REJECT. Its outcome goes
   to `observe(pick, outcome, ...)`. On a miss, the request's own fresh answer goes to the judge as
   well, in the same form: that is the label's control, and its outcome goes to `observe` with it.
4. *Sensitivity controls*: whenever `wants_control(...)` names a kind, the judge is asked about a
   pair that is wrong by construction, and `controlled(kind, outcome, ...)` takes the outcome.
5. *What is stored*: with each entry its question's text (for the features of a pair); with each
   namespace and model the bytes of `Evidence.pack`, shared by `offer`, `adopt` and `take_back`.
"""
