"""``python -m gt.serve RUN``: a trained model behind HTTP, in batches of what comes together; with a page to try it.

``POST /predict`` takes ``{"inputs": ["CCO", ...]}``; ``/docs`` says the rest, ``/health`` and ``/metrics`` are for
machines. It listens to this machine alone unless ``--host`` says otherwise: there are no passwords.
"""

import argparse
import socket
from pathlib import Path

from gt.cli.program import add_device, add_trust, device_of, import_from_here, importing, quick_exit
from gt.errors import Parser, UserError, one_line

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m gt.serve", description=__doc__.partition("\n\n")[2])
    parser.add_argument("checkpoint", type=Path, help="a file such as RUN/checkpoints/best.ckpt, or the run folder")
    parser.add_argument("--host", default="127.0.0.1", help="this machine alone (127.0.0.1) unless told")
    parser.add_argument("--port", type=int, default=8000, help="8000 unless told; 0 takes one that is free")
    parser.add_argument("--batch", type=int, default=64, help="inputs that are computed together at most")
    parser.add_argument("--wait", type=float, default=5.0, metavar="MS", help="that inputs wait for one another, 5 ms")
    parser.add_argument("--room", type=int, default=4096, help="inputs that may wait; beyond, requests get 503")
    parser.add_argument("--longest", type=int, default=2000, help="characters of a molecule, nodes of a graph; 2000")
    parser.add_argument("--timeout", type=float, default=30.0, metavar="S", help="after which a request is given up")
    add_device(parser)
    add_trust(parser)
    return parser.parse_args()


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes calls from now on; 0 takes a free port.

    Raises:
        UserError: it cannot listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # by this name of the protocol asyncio knows not to hold back an answer's body until its head is acknowledged, 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # whoever calls before the service has begun waits rather than being refused
    except OSError as error:
        raise UserError(f"cannot listen at {host}:{port}: {error.strerror}; choose another --port") from None
    return listener


def main() -> None:
    args = arguments()
    for name in ("batch", "room", "longest", "timeout"):
        if getattr(args, name) <= 0:
            raise UserError(f"--{name} must be above 0, not {getattr(args, name)}")
    import_from_here()
    with importing():  # late: --help and a typo answer at once
        try:
            import fastapi  # noqa: F401
            import uvicorn
        except ImportError:
            raise UserError("this takes FastAPI and uvicorn: pip install -e '.[serve]'") from None
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
        print(f"anybody who reaches {args.host} may ask: put a proxy with passwords before it", flush=True)
    port = listener.getsockname()[1]
    print(f"{app.title} at http://{args.host}:{port} (API at /docs); Ctrl-C ends it", flush=True)
    # a client that goes on with a connection just as it is closed for being idle loses its request: close late
    config = uvicorn.Config(
        app, log_level="warning", timeout_keep_alive=75, timeout_graceful_shutdown=int(args.timeout) + 1
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    with quick_exit(), one_line():
        main()
