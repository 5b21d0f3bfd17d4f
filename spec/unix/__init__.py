"""Unix domain sockets: stream connections, servers, datagrams."""
