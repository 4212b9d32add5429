"""Runs the command line as `python -m contacts_api`."""

from contacts_api.cli.app import main

if __name__ == "__main__":
    main()
