"""Rows through engines into shards: programs (what is asked for one row), the runner, two stages side by side."""
