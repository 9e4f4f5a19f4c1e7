"""What a run's tables show a reader: figures, alarms, samples to read, lineage, and the page that holds them.

run_tables    reads a run folder, table by table, streamed
facts         what is counted in one pass over a table (pure)
alarms        the signatures of a run that fools its owner (pure, thresholds in `settings`)
samples       rows to read: random ones, extreme ones, those of alarms (pure, seeded)
charts        figures as plotly specifications, made of what is in `plotting` (pure)
judges        every judge on every set, as rows of a table (pure)
naming        how trainings, stages and judges are called; whose judge goes on where an iteration trains twice (pure)
account       what became of rows, tokens and seconds (pure)
verdict       whether it learned, and whether that can be trusted, in sentences (pure)
lineage       from an id to all that came of it, and back
page          report.html: one file, no network
"""
