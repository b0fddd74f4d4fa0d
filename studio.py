"""Make music on a page of your own machine: ask, watch it grow, work on it by pointing.

Input    FOLDER: ideas as generate.py writes them; it may be new, or hold songs made before
Output   in FOLDER: new ideas with their stems and recipes; given/ (dropped songs), bin/ (deleted
         ideas), studio.json (names, notes and stars). Prints the address of the page
Example  python studio.py
         python studio.py generated --no-browser

The folder is the whole state: end the studio at any time with Ctrl-C, and start it again. Nothing
leaves the machine. Each start has an address of its own, with a token; whoever has it may use the
studio and read what is in FOLDER.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from backline.common.errors import Parser, UserError, reports_user_errors
from backline.common.files import check_writable
from backline.common.hub import fetched
from backline.common.installed import INSTALL_PLAYERS, is_installed
from backline.common.paths import BAND_MODEL, BUNDLED_MODEL
from backline.generation.session import LoadedModel

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8347
LAST_PORT = 65535


def build_parser() -> argparse.ArgumentParser:
    """The command's options."""
    parser = Parser(__doc__)
    parser.add_argument("folder",
                        type=Path,
                        nargs="?",
                        default=Path("ideas"),
                        metavar="FOLDER",
                        help="folder of ideas, created if missing (default: %(default)s)")
    parser.add_argument("-mp", "--model_path",
                        type=Path,
                        default=BUNDLED_MODEL,
                        metavar="MODEL",
                        help="model: .safetensors, a .pth of train_pool.py, or hf:owner/name on the "
                        f"Hugging Face hub (default: {BUNDLED_MODEL.name} in models/; {BAND_MODEL.name} "
                        "there plays seven parts)")
    parser.add_argument("--no-browser",
                        dest="browser",
                        action="store_false",
                        help="print the address, and open no browser")
    parser.add_argument("--port",
                        type=int,
                        default=DEFAULT_PORT,
                        help="port of the page; 0: any that is free (default: %(default)s)")
    parser.add_argument("--host",
                        default=DEFAULT_HOST,
                        help="address to serve at; any but the default lets other machines in "
                        "(default: %(default)s)")
    return parser


@reports_user_errors
def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C; returns the exit code."""
    args = build_parser().parse_args(argv)
    if not 0 <= args.port <= LAST_PORT:
        raise UserError(f"--port {args.port}: must be from 0 to {LAST_PORT}")
    for name in ("starlette", "uvicorn"):
        if not is_installed(name):
            raise UserError(f"the studio needs {name}, which is not installed; {INSTALL_PLAYERS}")
    from backline.studio import server
    from backline.studio.guard import new_token
    from backline.studio.studio import Studio

    check_writable(args.folder)
    sock = server.listening_socket(args.host, args.port)
    with sock:
        studio = Studio(args.folder, LoadedModel(fetched(args.model_path)))
        port = sock.getsockname()[1]
        hosts = server.served_hosts(args.host, port)
        token = new_token()
        address = f"http://{hosts[0]}/?token={token}"
        if not is_loopback(args.host):
            print(f"notice: --host {args.host}: other machines of this network can reach the studio. "
                  "Whoever has the address below can make songs, and read, change and delete the "
                  f"ideas in {args.folder}; it travels unencrypted.", file=sys.stderr)
        print(f"{address}\nopen it in a browser; Ctrl-C ends the studio", flush=True)
        for other in hosts[1:]:
            if not is_loopback(args.host) and not is_loopback(other.rpartition(":")[0].strip("[]")):
                print(f"from other machines: http://{other}/?token={token}", flush=True)
        if args.browser:
            webbrowser.open(address)
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how people end it
            server.made_server(studio, hosts, token).run(sockets=[sock])
    return 0


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


if __name__ == "__main__":
    sys.exit(main())
