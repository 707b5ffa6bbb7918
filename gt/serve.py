"""``python -m gt.serve RUN``: serve a trained model over HTTP, batching concurrent requests; with a page to try it.

``POST /predict`` takes ``{"inputs": ["CCO", ...]}``; ``/docs`` documents the API, ``/health`` and ``/metrics`` are for
monitoring. It listens on localhost only unless ``--host`` says otherwise: there is no authentication.
"""

import argparse
import socket
from pathlib import Path

from gt.cli.program import add_device, add_trust, device_of, import_from_here, importing, quick_exit
from gt.errors import Parser, UserError, one_line

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.serve", description=__doc__.partition("\n\n")[2])
    parser.add_argument(
        "checkpoint", type=Path, help="a checkpoint such as RUN/checkpoints/best.ckpt, or the run folder"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine only)"
    )
    parser.add_argument("--port", type=int, default=8000, help="port, 0 for any free one (default: 8000)")
    parser.add_argument("--batch", type=int, default=64, help="maximum number of inputs per batch")
    parser.add_argument(
        "--wait", type=float, default=5.0, metavar="MS", help="how long inputs wait for others (default: 5)"
    )
    parser.add_argument(
        "--room", type=int, default=4096, help="maximum number of waiting inputs; beyond, requests get 503"
    )
    parser.add_argument(
        "--longest", type=int, default=2000, help="maximum characters of a molecule or nodes of a graph (default: 2000)"
    )
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="seconds until a request times out")
    add_device(parser)
    add_trust(parser)
    return parser.parse_args()


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 takes any free port.

    Raises:
        UserError: the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # with an explicit protocol asyncio sets TCP_NODELAY; otherwise bodies wait 40 ms for the header's acknowledgement
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # early clients wait until the service has started rather than being refused
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror}; choose another --port") from None
    return listener


def main() -> None:
    args = arguments()
    for name in ("batch", "room", "longest", "timeout"):
        if getattr(args, name) <= 0:
            raise UserError(f"--{name} must be above 0, not {getattr(args, name)}")
    import_from_here()
    with importing():  # late, so that --help and typos are answered at once
        try:
            import fastapi  # noqa: F401
            import uvicorn
        except ImportError:
            raise UserError("this needs FastAPI and uvicorn: pip install -e '.[serve]'") from None
        from gt.train.checkpoint import checkpoint_in
    path = checkpoint_in(args.checkpoint)
    with importing():
        from gt.allocation import keep_freed_memory
        from gt.prediction.trained import load
        from gt.serving.app import Limits, service
    keep_freed_memory()
    model = load(path, args.trust).to(device_of(args.device))
    limits = Limits(args.batch, args.longest, args.wait / 1000, args.room, seconds=args.timeout)
    app = service(model, path.resolve().parent.parent.name, limits)
    listener = listen(args.host, args.port)
    if args.host not in LOOPBACK:
        print(f"anyone who can reach {args.host} can send requests: put an authenticating proxy in front", flush=True)
    port = listener.getsockname()[1]
    print(f"{app.title} at http://{args.host}:{port} (API at /docs); Ctrl-C ends it", flush=True)
    # a request on a connection that is just being closed as idle is lost: keep connections open for long
    config = uvicorn.Config(
        app, log_level="warning", timeout_keep_alive=75, timeout_graceful_shutdown=int(args.timeout) + 1
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
