"""A TCP proxy that makes a local server as slow as one far away.

    python benchmarks/slow_proxy.py LISTEN TARGET --latency 0.015 --rate 80

forwards 127.0.0.1:LISTEN to TARGET (a port, or host:port). Each connection gets ``--rate`` MB/s in
each direction, as object stores give, and each request waits ``--latency`` seconds before its first
byte passes, as over a network. A request starts when the client sends after the server has sent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time
from collections.abc import Coroutine

CHUNK = 64 * 1024


class Pace:
    """Lets bytes pass at *rate* a second; short waits are saved up, as timers are coarse."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.free_at = 0.0

    async def wait(self, size: int) -> None:
        now = time.perf_counter()
        self.free_at = max(self.free_at, now) + size / self.rate
        if self.free_at - now > 0.002:
            await asyncio.sleep(self.free_at - now)


class Link:
    """One client connection and its connection to the target."""

    def __init__(self, latency: float, rate: float) -> None:
        self.latency = latency
        self.rate = rate
        self.client_speaks = False

    async def requests(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        pace = Pace(self.rate)
        while data := await source.read(CHUNK):
            if not self.client_speaks:
                self.client_speaks = True
                await asyncio.sleep(self.latency)
            await pace.wait(len(data))
            sink.write(data)
            await sink.drain()

    async def answers(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        pace = Pace(self.rate)
        while data := await source.read(CHUNK):
            self.client_speaks = False
            await pace.wait(len(data))
            sink.write(data)
            await sink.drain()


async def serve(listen: int, host: str, port: int, *, latency: float, rate: float) -> None:
    """Forward until cancelled."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(latency, rate)
        with contextlib.suppress(ConnectionError):
            far_reader, far_writer = await asyncio.open_connection(host, port)
            try:
                await _first_end(
                    link.requests(reader, far_writer), link.answers(far_reader, writer)
                )
            finally:
                far_writer.close()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", listen, limit=4 * CHUNK)
    async with server:
        await server.serve_forever()


async def _first_end(*directions: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.ensure_future(each) for each in directions]
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception) and not isinstance(result, ConnectionError):
            raise result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("listen", type=int, metavar="LISTEN", help="port on 127.0.0.1")
    parser.add_argument("target", metavar="TARGET", help="port or host:port of the server")
    parser.add_argument("--latency", type=float, default=0.015, help="seconds a request")
    parser.add_argument("--rate", type=float, default=80, help="MB/s a connection and direction")
    args = parser.parse_args()
    host, _, port = args.target.rpartition(":")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(
            serve(
                args.listen,
                host or "127.0.0.1",
                int(port),
                latency=args.latency,
                rate=args.rate * 1e6,
            )
        )


if __name__ == "__main__":
    main()
