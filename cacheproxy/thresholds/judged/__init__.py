"""Thresholds that are earned from the verdicts of a judge that is itself mistaken at times.

What the chat route calls. All of it is pure: time and randomness are arguments, nothing waits. One
`JudgedThresholds` serves one namespace under one model.

1. *A lookup* gives up to `CANDIDATES` neighbours. The features of each pair come from
   `question_pair`; `rank` scores them, counts the text as traffic, and returns the `Pick`, the best
   one. `serve(pick)` says whether it is a semantic hit.
2. *After it*, where the `Allowance` has room, `wants_label(pick, allowance.fullness)` says whether
   the pair goes to the judge, and returns its weight. The chance depends on scores alone.
3. *The judge* is asked until `asking.outcome_of` has an outcome, up to five times.
   On a miss, if `wants_own()`, the request's own fresh answer goes to it as well, in the same form
   and in random order: the label's control. `observe` takes both outcomes. A pair whose answers are
   the same without the judge is observed as accepted, with `is_judged=False`; one for which the
   judge could not be reached is not observed.
4. *Sensitivity controls*: whenever `wants_control()` names a kind, the judge is asked about a pair
   that is wrong by construction, and `controlled` takes the outcome.
5. *What is stored*: with each entry its question's text, for the features; for each namespace and
   model the bytes of `Evidence.pack`, shared by `offer`, then `adopt`.
6. *What clients' requests cost* goes to `Allowance.earn`, what the proxy's own cost to `spend`.
"""
