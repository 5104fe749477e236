"""``python -m prsr``: the command line; ``torchrun -m prsr`` uses it too."""

from prsr.cli.main import main

if __name__ == "__main__":
    main()
