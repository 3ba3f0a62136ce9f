"""`python -m wicketgate.cli`: the command without its installed script."""

from wicketgate.cli import main

main()
