"""`python -m omni_avsr`."""

from omni_avsr.cli.app import main

if __name__ == "__main__":
    main()
