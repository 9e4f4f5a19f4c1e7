"""Self-Taught Evaluators (arXiv 2408.02666) on Ray: train an LLM judge without human preference labels."""

__version__ = "0.1.0"
