"""The QMP monitor of the server: what it does can be seen and steered while it runs."""
