"""`python -m dcformat` is the command `dcformat`; the only module of this package that knows the command line."""

from dcformat_cli.entry import main

if __name__ == "__main__":
    main()
