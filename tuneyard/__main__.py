"""`python -m tuneyard` is `tuneyard`: for an environment whose scripts are not on the PATH."""

from tuneyard.core.cli.main import main

if __name__ == "__main__":
    main()
