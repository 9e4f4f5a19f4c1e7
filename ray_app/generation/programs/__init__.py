"""Programs: what is asked of an engine for one row, as coroutines that run inside the engine actors.

A program is a picklable dataclass with `async __call__(engine, row) -> UnitResult`. It holds every decision of
its stage (what to ask next, when to stop, what is kept) and no I/O besides the engine.
"""
