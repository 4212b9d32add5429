"""`python -m contacts_api`: see cli.py."""

if __name__ == "__main__":
    # Only here: the workers, which import this module too, do without the command line and start sooner.
    from contacts_api.cli import main

    main()
