"""`python -m omni_avsr`."""

from omni_avsr.cli.app import main

main()
