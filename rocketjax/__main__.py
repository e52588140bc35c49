"""`python -m rocketjax`."""

from rocketjax.cli import main

main()
