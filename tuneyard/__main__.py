"""The script `tuneyard`, and `python -m tuneyard` for an environment whose scripts are not on the PATH."""

import signal


def main() -> None:
    """Run `tuneyard`. Ctrl-C during its imports ends it as SIGTERM does, without a traceback."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # a script's background jobs ignore it
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from tuneyard.core.cli.main import main as run

    signal.signal(signal.SIGINT, handler)
    run()


if __name__ == "__main__":
    main()
