"""The Prometheus endpoint of the server, on loopback, for who asks for one."""
