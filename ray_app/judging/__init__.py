"""Judging: what a judge is, and the protocols by which it is asked.

judge.py       a judge: engine, prompt, sampling; `judge.json` is read and written here
protocol.py    what every protocol has
registry.py    which there are: `protocol_of(mode)`, `protocol_for(mode, benchmark)`
pairwise.py    two responses in both orders, a verdict by letter
pointwise.py   single responses, scored from 1 to 10
best_of.py     four responses, by letter or by ratings (RewardBench 2)
rated.py       single responses with human scores
gold_set.py    judging a set with gold labels: `evaluate`, `judge`, the loop, checkpoint selection
spending.py    what judging a set took
"""
