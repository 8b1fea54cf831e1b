"""The command line from a clone, without an install: `python cli.py --help`. Not packaged."""

from omni_avsr.cli.app import main

if __name__ == "__main__":
    main()
