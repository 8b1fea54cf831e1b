"""One short script per published result, to be run, copied and edited."""
