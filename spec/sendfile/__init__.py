"""`loop.sendfile()` and `loop.sock_sendfile()`."""
