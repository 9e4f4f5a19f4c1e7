"""The judge behind HTTP (docs/serving.md)."""
