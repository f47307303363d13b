"""Connections to addresses that were looked at: public ones, whatever a name resolves to later."""

import http.client
import ipaddress
import socket
import ssl

from curation.errors import TransferFailed


class Connection(http.client.HTTPConnection):
    """A connection to one of the checked addresses, under the host's own name."""

    def __init__(self, host: str, port: int, addresses: list[str], timeout_s: float, tls: bool) -> None:
        super().__init__(host, port, timeout=timeout_s)
        self._addresses, self._tls = addresses, tls
        self.default_port = 443 if tls else 80  # else the port is part of the header Host

    def connect(self) -> None:
        error: OSError | None = None
        for address in self._addresses:
            try:
                self.sock = socket.create_connection((address, self.port), self.timeout)
                break
            except OSError as refused:
                error = refused
        else:
            raise error or OSError("no address")
        if self._tls:
            context = ssl.create_default_context()
            self.sock = context.wrap_socket(self.sock, server_hostname=self.host)


def no_address(url: str, by_hand: str = "--from") -> TransferFailed:
    return TransferFailed(
        f"{url}: expected http(s)://host/path without a user's name — mend the address in the card, or "
        f"get the file by hand, and use {by_hand}"
    )


def is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    return found.is_global and not found.is_multicast
