"""The stages, one module each, in the order in which data passes them. They never import each other.

    instructions → pairs → judgments → train_set → training → evaluation

Each has `settings_of(...)` (what its fingerprint covers) and `run(context, ...)` (does the work and returns the
numbers that its stage.json commits). Only `ray_app.loop.steps` knows their order.
"""
