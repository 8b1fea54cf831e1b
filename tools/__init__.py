"""Makes the tiny towers that ship with omni-avsr: `python -m tools.tiny_towers --help`."""
