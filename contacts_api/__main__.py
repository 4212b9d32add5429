"""`python -m contacts_api`: see cli.py."""

from contacts_api.cli.app import main

if __name__ == "__main__":
    main()
