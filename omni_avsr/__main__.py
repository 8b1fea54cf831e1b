"""`python -m omni_avsr`."""

from omni_avsr.cli import main

main()
