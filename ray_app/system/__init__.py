"""The process and its machine: reaching Ray, signals, the number format, shares of the cores, the terminal."""
