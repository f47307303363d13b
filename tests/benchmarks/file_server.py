"""Serve one file on loopback as fast as the kernel copies it: `file_server.py FILE PORT`.

Knows GET and HEAD of any path, no ranges; prints a line when it listens, and ends when it is killed.
"""

import os
import socket
import sys


def main() -> None:
    path, port = sys.argv[1], int(sys.argv[2])
    with socket.create_server(("127.0.0.1", port)) as listening, open(path, "rb") as file:
        print("listening", flush=True)
        size = os.fstat(file.fileno()).st_size
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n"
            'Content-Type: text/csv\r\nETag: "1"\r\nConnection: close\r\n\r\n'
        )
        while True:
            connection, _ = listening.accept()
            with connection:
                asked = b""
                while b"\r\n\r\n" not in asked and (more := connection.recv(1 << 16)):
                    asked += more
                connection.sendall(head.encode())
                if asked.startswith(b"GET"):
                    connection.sendfile(file, 0, size)


if __name__ == "__main__":
    main()
