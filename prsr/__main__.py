"""``python -m prsr``: the command line, for ``torchrun -m prsr`` among others."""

from prsr.cli.main import main

if __name__ == "__main__":
    main()
