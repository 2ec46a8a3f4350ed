"""The first thing that the program ``cowfs`` does: Ctrl-C ends it from the start, while it loads itself, too."""

from __future__ import annotations

import signal
from typing import NoReturn


def main() -> NoReturn:
    """Be the program ``cowfs``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # which would print a traceback
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from cowfs.cli.main import main as run

    run()
