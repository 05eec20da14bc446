"""Run the command for `python -m dcformat`; no other module of this package knows the command line."""

from dcformat_cli.entry import main

if __name__ == "__main__":
    main()
