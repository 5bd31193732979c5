"""Where the one file begins: edgehub's command line, or the agent that `edgehub run` becomes.

`edgehub run` replaces its process by ``sys.executable -m edgehub.daemon ...``. In here ``sys.executable`` is the file
itself, which is no Python and knows no ``-m``; so that one call is understood here. The libraries are not unpacked
again for it: PyInstaller's first process says in the environment where they are.
"""

import sys

AGENT = ["-m", "edgehub.daemon"]


def main() -> None:
    arguments = [argument for argument in sys.argv[1:4] if argument != "-P"]
    if arguments[:2] == AGENT:
        from edgehub import daemon

        sys.argv[1:] = sys.argv[sys.argv.index(AGENT[1]) + 1 :]
        daemon.main()
    else:
        from edgehub import cli

        cli.main()


main()
