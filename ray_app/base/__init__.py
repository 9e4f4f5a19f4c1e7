"""What every room builds on: rows, ids and seeds, the verdict parser, prompts, model folders, parts of settings trees.

Nothing here starts anything; most of it is pure.
"""
