"""The loop: instructions → pairs → judgments → training set → checkpoint → evaluation → next iteration.

config.py      its settings
steps.py       its order, as data
run.py         a run from its start to its tables
checks.py      what is refused before any work
stages/        the work of each step
"""
