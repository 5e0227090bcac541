"""The vhost-user protocol: the session with a front end such as QEMU."""
