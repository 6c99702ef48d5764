"""`python -m ondol` is the `ondol` command; knows nothing else."""

from ondol.cli.main import main

if __name__ == "__main__":
    main()
