"""What the commands share, and the work of `judge` and `evaluate`. The loop's own is `ray_app.loop`.

load_settings.py   settings from YAML, environment and options; exit codes; one-line errors
reference.py   `--help` and docs/settings.md, made from the settings tree
settings.py    settings of `judge` and `evaluate`
judging.py     what both do: a judge, judging into a folder, serving
"""
