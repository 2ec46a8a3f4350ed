"""``python -m cowfs.cli`` is ``cowfs``: how a background mount starts itself."""

from cowfs.cli.main import main

main()
