"""`python -m gradnorm_plugin`."""

from gradnorm_plugin.cli import main

if __name__ == "__main__":
    main()
