"""Loaded by a program that tests start with this folder in PYTHONPATH: an internet of one site, on a local server.

`images.example.org` has a public address there, and connections to that address go to the port in TEST_SITE_PORT.
"""

import os
import socket

ADDRESS = "93.184.215.14"
_getaddrinfo, _create_connection = socket.getaddrinfo, socket.create_connection


def getaddrinfo(host, port, *more, **options):
    return _getaddrinfo(ADDRESS if host == "images.example.org" else host, port, *more, **options)


def create_connection(address, *more, **options):
    if address[0] == ADDRESS:
        address = ("127.0.0.1", int(os.environ["TEST_SITE_PORT"]))
    return _create_connection(address, *more, **options)


socket.getaddrinfo, socket.create_connection = getaddrinfo, create_connection
