"""Gates for CI: what two sets of runs say about a change, as verdicts; and where a series of them changed."""
