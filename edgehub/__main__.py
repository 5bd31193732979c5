"""`python -m edgehub`."""

from edgehub.cli import main

if __name__ == "__main__":
    main()
