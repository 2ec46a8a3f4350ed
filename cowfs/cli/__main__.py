"""``python -m cowfs.cli`` is ``cowfs``: how a background mount starts itself."""

from cowfs.cli.start import main

main()
